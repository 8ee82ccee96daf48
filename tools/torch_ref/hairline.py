"""What of a portrait's outline is hair (``vasa_jax/face/warp/hairline.py``)."""

from __future__ import annotations

import torch
from torch import Tensor

from tools.torch_ref.head import absolute_pose
from tools.torch_ref.layers import binomial
from tools.torch_ref.raster import SourceGeometry, grown, head_plane
from vasa_jax.face.warp import hairline
from vasa_jax.face.warp.geometry import FACE, SCALP


def hair(image: Tensor, source: SourceGeometry) -> Tensor:
    """How surely each pixel of a portrait's head (3, Y, X) shows hair, 0..1, (Y, X)."""
    size, group = image.shape[-1], source.group
    pose = absolute_pose(source.motion[None], source.placement[None])
    x, y = (plane[0] for plane in head_plane(pose, size))
    low, high = hairline.CHEEKS
    scalp = (group == SCALP) & (y > hairline.SCALP_ABOVE)
    cheeks = (group == FACE) & (y > low) & (y < high) & (x.abs() < hairline.FRONTAL)
    far = {}
    for name, where in (("hair", scalp), ("skin", cheeks)):
        weight = where / where.sum().clamp(min=1)
        mean = (image * weight).sum((1, 2), keepdim=True)
        variance = ((image - mean).square() * weight).sum((1, 2), keepdim=True) + hairline.NOISE**2
        far[name] = ((image - mean).square() / variance).sum(0), variance.log().sum()
    odds = 0.5 * (sum(far["skin"]) - sum(far["hair"])) - hairline.ODDS
    typical = 1.0 - _ramp(far["hair"][0], hairline.TYPICAL)
    reach = hairline.BESIDE_PX * max(size // 256, 1)
    outside = (group < 0).float()
    beside = grown(outside, reach) * (1.0 - grown(outside * (1.0 - typical), reach))
    likely = torch.maximum(odds.sigmoid(), beside) * typical
    likely = binomial(likely[None, None])[0, 0]
    known = torch.minimum(scalp.sum(), cheeks.sum()) >= hairline.FEWEST_PX * (size / 256) ** 2
    return known * (group >= 0) * _ramp(y, hairline.HAIR) * likely


def _ramp(value: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return ((value - low) / (high - low)).clamp(0.0, 1.0)
