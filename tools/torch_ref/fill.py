"""Holes filled from around (``vasa_jax/nn/fill.py``), channels first."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vasa_jax.nn.fill import COARSE


def push_pull(image: Tensor, hole: Tensor, *, levels: int = 7) -> Tensor:
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


def cells(image: Tensor) -> Tensor:
    """Sums over cells of (B, C, Y, X)."""
    return F.avg_pool2d(image, COARSE) * COARSE**2


def coarse(image: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
    """Cells' means of what is sure, and the share of each that is a hole."""
    weight = cells(sure)
    return cells(image * sure) / weight.clamp(min=1e-6), 1.0 - weight.clamp(max=1.0)


def spread(image: Tensor) -> Tensor:
    """Cells to pixels, linear between their centres."""
    return F.interpolate(image, scale_factor=COARSE, mode="bilinear", align_corners=False)
