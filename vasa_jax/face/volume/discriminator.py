"""The multi-scale patch discriminator of stage 1 (MegaPortraits B.1; author's code, facts 2.4).

Each scale sees the picture alone, halved once more than the last: four 3x3 convolutions of 64, 128,
256, 512 channels with strides 2, 2, 2, 1, instance norm and leaky ReLU, then a 1x1 score per patch.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.core.precision import Precision
from vasa_jax.nn.conv import Conv
from vasa_jax.nn.norm import GroupNorm
from vasa_jax.nn.resample import mean_pool
from vasa_jax.nn.residual import Pointwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of the discriminator."""

    scales: int = 2
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (2, 2, 2, 1)
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.strides):
            raise ValueError("discriminator.widths and discriminator.strides differ in length")


class Verdict(NamedTuple):
    """Of each scale: scores (B, y, x, 1), and the features of every block."""

    scores: list[jax.Array]
    features: list[list[jax.Array]]


class PatchNet(nn.Module):
    """One scale."""

    cfg: DiscriminatorConfig

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        features = []
        for i, (width, stride) in enumerate(zip(self.cfg.widths, self.cfg.strides, strict=True)):
            x_BYXC = Conv(width, stride=stride, name=f"conv_{i}")(x_BYXC)
            if i:  # the first block sees colours and contrast as they are
                x_BYXC = GroupNorm(width, name=f"norm_{i}")(x_BYXC)
            x_BYXC = nn.leaky_relu(x_BYXC, 0.2)
            features.append(x_BYXC)
        return Pointwise(1, name="score")(x_BYXC).astype(jnp.float32), features


class Discriminator(nn.Module):
    """Pictures (B, Y, X, 3) in [-1, 1] -> ``Verdict``."""

    cfg: DiscriminatorConfig = DiscriminatorConfig()

    @nn.compact
    def __call__(self, image_BYXC: jax.Array) -> Verdict:
        x = image_BYXC.astype(self.cfg.precision.compute_dtype)
        verdict = Verdict([], [])
        for scale in range(self.cfg.scales):
            score, features = PatchNet(self.cfg, name=f"scale_{scale}")(x)
            verdict.scores.append(score)
            verdict.features.append(features)
            x = mean_pool(x, (2, 2))
        return verdict
