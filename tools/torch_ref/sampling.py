"""Sampling pictures and volumes at moving points (``vasa_jax/nn/warp.py``), in two forms.

"grid" is ``F.grid_sample``, the function that PyTorch has for this. "gather" reads the corners of
a channels-last array by index and adds them up: slow op by op, but ``torch.compile`` makes one loop
of it, as XLA does of ours. Both clamp to the border and follow ``align_corners=False``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["grid", "gather"]
Points = tuple[Tensor, ...]  # x, y (and z), each of the same shape or one that broadcasts


def centres(*shape: int, device: str | torch.device = "cpu") -> Points:
    """Cell centres in [-1, 1] along each axis, x first; each has the whole's rank."""
    axes = [(torch.arange(n, device=device) + 0.5) * (2.0 / n) - 1.0 for n in shape]
    dims = range(len(shape))
    wide = [a.reshape([len(a) if i == k else 1 for k in dims]) for i, a in enumerate(axes)]
    return tuple(wide[::-1])


def grid_of(*shape: int, device: str | torch.device = "cpu") -> Tensor:
    """Cell centres in [-1, 1], (*shape, dims), last axis (x, y) or (x, y, z)."""
    return torch.stack(torch.broadcast_tensors(*centres(*shape, device=device)), -1)


def _cell(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    p = ((coordinate + 1.0) * (size * 0.5) - 0.5).clamp(0.0, size - 1.0)
    low = p.floor().clamp(0, max(size - 2, 0))
    i = low.long()
    return i, (i + 1).clamp(max=size - 1), p - low


def _gather(x: Tensor, points: Points) -> Tensor:
    """(B, C, *spatial) at points, each (B, *out) -> (B, C, *out), by indices."""
    spatial = x.shape[2:]
    cells = [_cell(plane, n) for plane, n in zip(points[::-1], spatial, strict=True)]
    rows = x.movedim(1, -1)  # channels last: a corner is one piece of memory
    batch = torch.arange(len(x), device=x.device).reshape(-1, *(1,) * (points[0].ndim - 1))
    out: Tensor | None = None
    for corner in range(2 ** len(spatial)):
        index, weight = [], None
        for axis, (low, high, fraction) in enumerate(cells):
            upper = corner >> axis & 1
            index.append(high if upper else low)
            share = fraction if upper else 1 - fraction
            weight = share if weight is None else weight * share
        assert weight is not None
        term = rows[(batch, *index)].to(weight.dtype) * weight[..., None]
        out = term if out is None else out + term
    assert out is not None
    return out.to(x.dtype).movedim(-1, 1)


def sample(x: Tensor, points: Tensor | Points, form: Form = "grid") -> Tensor:
    """Linear samples of (B, C, *spatial) at points (B, *out, dims) in [-1, 1] -> (B, C, *out).

    The order of coordinates is (x, y) and (x, y, z); a tuple has an array (B, *out) for each. Grids
    stay float32 whatever ``x`` is.
    """
    if form == "gather":
        return _gather(x, points if isinstance(points, tuple) else points.unbind(-1))
    at = torch.stack(points, -1) if isinstance(points, tuple) else points
    sampled = F.grid_sample(
        x.to(at.dtype), at, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.to(x.dtype)
