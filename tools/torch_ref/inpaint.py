"""Layers seen from the driver's pose, and paint (``vasa_jax/face/inpaint.py``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.torch_ref.fill import coarse, push_pull, spread
from tools.torch_ref.layers import binomial
from tools.torch_ref.raster import DriverGeometry
from tools.torch_ref.sampling import Form, sample
from vasa_jax.face.geometry import Maps
from vasa_jax.face.inpaint import FEW

_FACE = Maps._fields.index("face")


def skin_layer(image: Tensor, opening_YX2: Tensor) -> Tensor:
    """The portrait (1, 3, Y, X) with eyes and mouth painted over from around."""
    unit = image.shape[-1] // 128
    pixels = 2 * max(unit // 2, 1)
    hole = opening_YX2.amax(-1)[None, None]
    hole = F.max_pool2d(hole, 2 * pixels + 1, stride=1, padding=pixels)
    return push_pull(image, hole)


def warp_layers(layers: Tensor, geometry: DriverGeometry, form: Form) -> Tensor:
    """Warped layers (B, 6, Y, X), the far side of the face painted."""
    moved, known = sample(layers, geometry.flow, form), geometry.known
    face = geometry.maps[:, _FACE : _FACE + 1]
    unseen = face - known
    enough = unseen.sum((1, 2, 3), keepdim=True) > FEW * face.sum((1, 2, 3), keepdim=True)
    arguments = (moved, (known > 0.99).float(), enough * unseen)
    # A frame that needs no paint does not pay for it, as in ours; a compiled graph needs `cond`.
    if torch.compiler.is_compiling():
        return torch.cond(enough.any(), _painted, _untouched, arguments)
    return _painted(*arguments) if bool(enough.any()) else moved


def _painted(moved: Tensor, sure: Tensor, share: Tensor) -> Tensor:
    paint = push_pull(*coarse(moved[:, 3:], sure))
    return moved + binomial(share) * (spread(paint).repeat(1, 2, 1, 1) - moved)


def _untouched(moved: Tensor, sure: Tensor, share: Tensor) -> Tensor:
    return moved.clone()
