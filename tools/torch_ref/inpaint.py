"""Layers seen from the driver's pose, and paint (``vasa_jax/face/warp/inpaint.py``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.torch_ref.fill import coarse, push_pull, spread
from tools.torch_ref.layers import binomial
from tools.torch_ref.raster import DriverGeometry
from tools.torch_ref.sampling import Form, sample
from vasa_jax.face.warp.geometry import Maps
from vasa_jax.face.warp.inpaint import FEW

_FACE = Maps._fields.index("face")


def skin_layer(image: Tensor, opening_YX2: Tensor) -> Tensor:
    """The portrait (1, 3, Y, X) with eyes and mouth painted over from around."""
    unit = image.shape[-1] // 128
    pixels = 2 * max(unit // 2, 1)
    hole = opening_YX2.amax(-1)[None, None]
    hole = F.max_pool2d(hole, 2 * pixels + 1, stride=1, padding=pixels)
    return push_pull(image, hole)


def warp_layers(layers: Tensor, geometry: DriverGeometry, form: Form) -> Tensor:
    """Warped layers (B, 6, Y, X), the far side of the face and what is below the jaw painted."""
    moved = sample(layers, geometry.flow, form)
    face = geometry.maps[:, _FACE : _FACE + 1]
    area = (geometry.unknown + geometry.throat).sum((1, 2, 3), keepdim=True)
    enough = area > FEW * face.sum((1, 2, 3), keepdim=True)
    sure = (geometry.known > 0.99).float()
    arguments = (moved, sure, enough * geometry.unknown, enough * geometry.throat)
    # A frame that needs no paint does not pay for it, as in ours; a compiled graph needs `cond`.
    if torch.compiler.is_compiling():
        return torch.cond(enough.any(), _painted, _untouched, arguments)
    return _painted(*arguments) if bool(enough.any()) else moved


def _painted(moved: Tensor, sure: Tensor, unknown: Tensor, throat: Tensor) -> Tensor:
    around = 1.0 - F.max_pool2d(torch.maximum(unknown, throat), 3, stride=1, padding=1)
    cheek, under = _paint(moved[:, 3:], sure), _paint(moved[:, :3], around)
    for paint, share in ((cheek, unknown), (under, throat)):
        moved = moved + binomial(share) * (paint.repeat(1, 2, 1, 1) - moved)
    return moved


def _paint(image: Tensor, sure: Tensor) -> Tensor:
    return spread(push_pull(*coarse(image, sure)))


def _untouched(moved: Tensor, sure: Tensor, unknown: Tensor, throat: Tensor) -> Tensor:
    return moved.clone()
