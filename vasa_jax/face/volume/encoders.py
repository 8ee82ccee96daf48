"""Encoders of the full model: ``E_app`` (posed volume, identity map) and ``E_dyn``.

Layer tables: MegaPortraits figure 9a and appendix A.1. Widths come from the configuration; shapes
below are those of the published 512 px model. ``E_pose`` has no net: the pose is fitted from
landmarks (``face/head/fit.py``, ``face/head/pose.py``) and frozen.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.nn.conv import Conv
from vasa_jax.nn.norm import GroupNorm
from vasa_jax.nn.resample import mean_pool
from vasa_jax.nn.residual import GROUPS, NormBlock, Pointwise, ResNet

MAP = 4  # the identity map and the input of the warp generators are MAP x MAP


def volume_from_channels(x_BYXK: jax.Array, depth: int) -> jax.Array:
    """(B, Y, X, Z*C) -> (B, Z, Y, X, C): channels of a picture read as depth."""
    b, y, x, k = x_BYXK.shape
    return x_BYXK.reshape(b, y, x, depth, k // depth).transpose(0, 3, 1, 2, 4)


def channels_from_volume(x_BZYXC: jax.Array) -> jax.Array:
    """(B, Z, Y, X, C) -> (B, Y, X, Z*C); the inverse of ``volume_from_channels``."""
    b, z, y, x, c = x_BZYXC.shape
    return x_BZYXC.transpose(0, 2, 3, 1, 4).reshape(b, y, x, z * c)


class VolumeEncoder(nn.Module):
    """Picture (B, 512, 512, 3) -> posed volume (B, 16, 64, 64, 96).

    7x7 convolution, blocks of growing width each followed by 2x2 means until the volume's size is
    reached (a 256 px picture skips the last one), 1x1 convolution read as depth, 3D blocks.
    """

    volume: tuple[int, int, int, int]  # Z Y X C
    widths: tuple[int, ...]  # stem, then one per block
    blocks: int  # of the volume
    block: Any = NormBlock

    @nn.compact
    def __call__(self, image_BYXC: jax.Array) -> jax.Array:
        z, y, _, c = self.volume
        h = Conv(self.widths[0], size=7, name="stem")(image_BYXC)
        for i, width in enumerate(self.widths[1:]):
            h = self.block(width, name=f"block_{i}")(h)
            if h.shape[1] > y:
                h = mean_pool(h, (2, 2))
        h = nn.relu(GroupNorm(GROUPS, name="norm")(h))
        v = volume_from_channels(Pointwise(z * c, name="to_volume")(h), z)
        for i in range(self.blocks):
            v = self.block(c, name=f"volume_{i}")(v)
        return v


class IdentityEncoder(nn.Module):
    """Picture, background removed -> identity map ``z_id`` (B, 4, 4, 512), MegaPortraits' e_s.

    ResNet-50 with group norm on a reduced picture. A map, not a vector: warps that start from a
    vector lose place (paper facts 2.3).
    """

    code: int
    size: int  # the picture is averaged down to this side first
    blocks: tuple[int, int, int, int]
    width: int

    @nn.compact
    def __call__(self, image_BYXC: jax.Array) -> jax.Array:
        k = image_BYXC.shape[1] // self.size
        h = mean_pool(image_BYXC, (k, k)) if k > 1 else image_BYXC
        h = ResNet(self.blocks, self.width, bottleneck=True, name="trunk")(h)
        h = Pointwise(self.code, name="out")(h)
        k = h.shape[1] // MAP
        return mean_pool(h, (k, k))


class ExpressionEncoder(nn.Module):
    """``E_dyn``: aligned face (B, 128, 128, 3) -> dynamics code ``z_dyn`` (B, 128), not normalised.

    ResNet-18, 1x1 convolution, dropout, pooling to 4x4, linear map without bias.
    """

    code: int
    blocks: tuple[int, int, int, int]
    width: int
    dropout: float

    @nn.compact
    def __call__(self, face_BYXC: jax.Array, *, train: bool = False) -> jax.Array:
        h = ResNet(self.blocks, self.width, name="trunk")(face_BYXC)
        h = Pointwise(self.code, name="reduce")(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        k = h.shape[1] // MAP
        h = mean_pool(h, (k, k)).reshape(h.shape[0], -1)
        # The code is what the motion model sees: float32 whatever the trunk computes in.
        return nn.Dense(self.code, use_bias=False, name="out")(h.astype(jnp.float32))
