"""Layers seen from the driver's pose, and paint (``vasa_jax/face/inpaint.py``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.torch_ref.layers import to_front
from tools.torch_ref.raster import DriverGeometry
from tools.torch_ref.sampling import Form, sample
from vasa_jax.face.geometry import MAP_NAMES
from vasa_jax.face.inpaint import COARSE, FEW, STRETCH


def skin_layer(image: Tensor, opening_YX2: Tensor) -> Tensor:
    """The portrait (1, 3, Y, X) with eyes and mouth painted over from around."""
    unit = image.shape[-1] // 128
    pixels = 2 * max(unit // 2, 1)
    hole = opening_YX2.amax(-1)[None, None]
    hole = F.max_pool2d(hole, 2 * pixels + 1, stride=1, padding=pixels)
    return inpaint(image, hole)


def inpaint(image: Tensor, hole: Tensor, *, levels: int = 7) -> Tensor:
    """Fills holes (1, 1, Y, X) from around by push-pull over a pyramid."""
    weight = 1.0 - hole
    stack = [(image * weight, weight)]
    for _ in range(levels):
        c, w = stack[-1]
        if c.shape[-1] < 2:
            break
        c, w = (4.0 * F.avg_pool2d(x, 2) for x in (c, w))
        norm, full = w.clamp(min=1e-6), w.clamp(max=1.0)
        stack.append((c / norm * full, full))
    c, w = stack[-1]
    filled = c / w.clamp(min=1e-6)
    for c, w in reversed(stack[:-1]):
        up = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        filled = c + (1.0 - w) * up
    return filled


def warp_layers(layers: Tensor, geometry: DriverGeometry, form: Form) -> Tensor:
    """Warped layers (B, 6, Y, X), the far side of the face painted."""
    moved = sample(layers, geometry.flow, form)
    maps = to_front(geometry.maps)
    face, seen, stretch = (
        maps[:, [MAP_NAMES.index(name)]] for name in ("face", "visible", "stretch")
    )
    low, high = STRETCH
    known = face * seen * ((high - stretch) / (high - low)).clamp(0.0, 1.0)
    sure = face * seen * (stretch < low)
    unseen = face - known
    enough = unseen.sum((1, 2, 3), keepdim=True) > FEW * face.sum((1, 2, 3), keepdim=True)
    arguments = (moved, sure, enough * unseen)
    # A frame that needs no paint does not pay for it, as in ours; a compiled graph needs `cond`.
    if torch.compiler.is_compiling():
        return torch.cond(enough.any(), _painted, _untouched, arguments)
    return _painted(*arguments) if bool(enough.any()) else moved


def _painted(moved: Tensor, sure: Tensor, share: Tensor) -> Tensor:
    weight, color = (F.avg_pool2d(x, COARSE) * COARSE**2 for x in (sure, moved[:, 3:] * sure))
    paint = inpaint(color / weight.clamp(min=1e-6), 1.0 - weight.clamp(max=1.0))
    paint = F.interpolate(paint, scale_factor=COARSE, mode="bilinear", align_corners=False)
    return moved + share * (paint.repeat(1, 2, 1, 1) - moved)


def _untouched(moved: Tensor, sure: Tensor, share: Tensor) -> Tensor:
    return moved.clone()
