"""Residual blocks of the full face model and its ResNet trunks, channels last.

One block (MegaPortraits figure 10c), for pictures and for volumes::

    x ──► GN ─► ReLU ─► 3x3(x3) conv, weights standardised ─► GN ─► ReLU ─► 3x3(x3) conv ──► + ─►
    └───────────────────── shortcut: a convolution where widths differ, else x ──────────────┘

Group norms have 32 groups, or the most that divide the width below that.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax

from vasa_jax.nn.conv import Conv, Conv3D, standardise
from vasa_jax.nn.convolution import conv_same
from vasa_jax.nn.norm import GroupNorm, LowRankGroupNorm
from vasa_jax.nn.resample import upsample_nearest

GROUPS = 32


class Pointwise(nn.Module):
    """1x1 (x1) convolution of (B, *spatial, C), in the dtype of its input."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.features, dtype=x.dtype, name="dense")(x)


class NormBlock(nn.Module):
    """The residual block of the module header for (B, Y, X, C) or (B, Z, Y, X, C).

    With a code (B, L, D) its norms are adaptive (``LowRankGroupNorm``), as in warp generators.
    ``shortcut`` is the kernel's side of the convolution that joins different widths, 1 or 3.
    ``upsample``: of the picture whose every cell is there twice along each axis. Norm and ReLU see
    the same with cells there once, so only convolutions know of it.
    """

    features: int
    shortcut: int = 3
    upsample: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, code_BLD: jax.Array | None = None) -> jax.Array:
        conv = Conv if x.ndim == 4 else functools.partial(Conv3D, at_once=True)
        assert x.ndim == 4 or not self.upsample
        first = functools.partial(conv, upsample=True) if self.upsample else conv

        def norm(h: jax.Array, name: str) -> jax.Array:
            if code_BLD is None:
                return GroupNorm(GROUPS, name=name)(h)
            return LowRankGroupNorm(GROUPS, name=name)(h, code_BLD)

        h = nn.relu(norm(x, "norm_0"))
        h = first(self.features, standardised=True, name="conv_0")(h)
        h = conv(self.features, name="conv_1")(nn.relu(norm(h, "norm_1")))
        if x.shape[-1] != self.features:
            if self.shortcut == 3:
                return first(self.features, name="shortcut")(x) + h
            x = Pointwise(self.features, name="shortcut")(x)
        return (upsample_nearest(x) if self.upsample else x) + h


class NormConv(nn.Module):
    """Convolution with standardised weights and stride, then group norm; no bias, norm has one."""

    features: int
    size: int = 3
    stride: int = 1
    standardised: bool = True

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x_BYXC.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = standardise(kernel) if self.standardised else kernel
        h = conv_same(x_BYXC, kernel.astype(x_BYXC.dtype), self.stride)
        return GroupNorm(GROUPS, name="norm")(h)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18)."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        h = nn.relu(NormConv(self.features, 3, self.stride, name="conv_0")(x_BYXC))
        h = NormConv(self.features, name="conv_1")(h)
        if h.shape != x_BYXC.shape:
            x_BYXC = NormConv(self.features, 1, self.stride, name="shortcut")(x_BYXC)
        return nn.relu(x_BYXC + h)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width (ResNet-50)."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        h = nn.relu(NormConv(self.features, 1, name="conv_0")(x_BYXC))
        h = nn.relu(NormConv(self.features, 3, self.stride, name="conv_1")(h))
        h = NormConv(4 * self.features, 1, name="conv_2")(h)
        if h.shape != x_BYXC.shape:
            x_BYXC = NormConv(4 * self.features, 1, self.stride, name="shortcut")(x_BYXC)
        return nn.relu(x_BYXC + h)


class ResNet(nn.Module):
    """ResNet trunk (arXiv 1512.03385): (B, Y, X, 3) -> (B, Y/32, X/32, 8 w or, wide, 32 w).

    Group norm instead of batch norm, so that no example sees the others (a suspect for leaking
    identity, paper facts 4.1), and standardised weights, which suit it (arXiv 1912.11370).
    """

    blocks: tuple[int, int, int, int]
    width: int = 64
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        stem = NormConv(self.width, 7, 2, standardised=False, name="stem")
        h = nn.relu(stem(x_BYXC))
        h = nn.max_pool(h, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        block = Bottleneck if self.bottleneck else BasicBlock
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                name = f"stage_{stage}_{i}"
                h = block(self.width * 2**stage, stride, name=name)(h)
        return h
