"""The rendering half of the full model: warp generators, ``G_3D``, projection and ``G_2D``.

Layer tables: MegaPortraits figures 9b-9d. Where figure, text and the author's later code disagree
(paper facts 2.3) the figure is followed, except that a block whose width stays has no convolution
in its shortcut (the code), and that "196" is read as 192, which 32 groups divide.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.face.head.pose import rigid_grid
from vasa_jax.face.volume.encoders import MAP, channels_from_volume
from vasa_jax.nn.conv import Conv, Conv3D
from vasa_jax.nn.norm import GroupNorm
from vasa_jax.nn.resample import mean_pool, upsample_nearest
from vasa_jax.nn.residual import GROUPS, NormBlock, Pointwise
from vasa_jax.nn.warp import sample_twice, shifted


class WarpGenerator(nn.Module):
    """Offsets (B, Z, Y, X, 3) in [-1, 1] from dynamics code (B, K) and identity map (B, 4, 4, D).

    The code becomes a map and is averaged with the identity map; that sum seeds a 4x4x4 volume and
    drives every adaptive norm. Blocks come before upsampling; depth grows until it is that of the
    volume: 4, 8, 16, 16, 16. Starts at zero offset, which makes the chain of two samplings rigid.
    """

    shape: tuple[int, int, int]  # Z Y X
    widths: tuple[int, ...]  # of each block; Y = 4 * 2 ** len(widths)
    block: Any = NormBlock

    @nn.compact
    def __call__(self, code_BK: jax.Array, identity_BYXD: jax.Array) -> jax.Array:
        b, _, _, width = identity_BYXD.shape
        code = nn.Dense(MAP * MAP * width, name="spread")(code_BK.astype(jnp.float32))
        h = identity_BYXD + code.reshape(identity_BYXD.shape).astype(identity_BYXD.dtype)
        h = Pointwise(width, name="mix")(0.5 * h)
        code_BLD = h.reshape(b, MAP * MAP, width)
        h = Pointwise(MAP * width, name="seed")(h).reshape(b, MAP, MAP, MAP, width)
        h = h.transpose(0, 3, 1, 2, 4)
        for i, features in enumerate(self.widths):
            h = self.block(features, name=f"block_{i}")(h, code_BLD)
            h = upsample_nearest(h, (2 if h.shape[1] < self.shape[0] else 1, 2, 2))
        h = nn.relu(GroupNorm(GROUPS, name="norm")(h))
        offset = Conv3D(3, kernel_init=nn.initializers.zeros, at_once=True, name="out")(h)
        return jnp.tanh(offset.astype(jnp.float32))


def to_canonical(
    posed_BZYXC: jax.Array, view_from_canonical_B34: jax.Array, offset_BZYX3: jax.Array
) -> jax.Array:
    """Source to canonical by two samplings, never one of summed grids: rigid, then non-rigid."""
    rigid = rigid_grid(view_from_canonical_B34, posed_BZYXC.shape[1:4])
    return sample_twice(posed_BZYXC, rigid, shifted(offset_BZYX3))


def from_canonical(
    volume_BZYXC: jax.Array, canonical_from_view_B34: jax.Array, offset_BZYX3: jax.Array
) -> jax.Array:
    """Canonical to driver, the reverse order: non-rigid, then rigid."""
    rigid = rigid_grid(canonical_from_view_B34, volume_BZYXC.shape[1:4])
    return sample_twice(volume_BZYXC, shifted(offset_BZYX3), rigid)


class VolumeUNet(nn.Module):
    """``G_3D`` on the canonical volume: (B, 16, 64, 64, 96) -> the same.

    Going down, height and width halve while depth doubles until the volume is a cube, then all
    halve: 192 at 16x64x64, 384 at 32x32x32, 512 at 16x16x16, and back up with a block on each skip.
    """

    widths: tuple[int, int, int] = (192, 384, 512)
    block: Any = NormBlock

    @nn.compact
    def __call__(self, v_BZYXC: jax.Array) -> jax.Array:
        outer, inner, core = self.widths
        c = v_BZYXC.shape[-1]
        flat = self.block(outer, name="down_0")(v_BZYXC)
        cube = upsample_nearest(mean_pool(flat, (1, 2, 2)), (2, 1, 1))
        cube = self.block(inner, name="down_1")(cube)
        h = self.block(core, name="core_0")(mean_pool(cube, (2, 2, 2)))
        h = self.block(core, name="core_1")(h)
        h = upsample_nearest(self.block(inner, name="up_1")(h))
        h = h + self.block(inner, name="skip_1")(cube)
        h = self.block(outer, name="up_0")(h)
        h = upsample_nearest(mean_pool(h, (2, 1, 1)), (1, 2, 2))
        h = h + self.block(outer, name="skip_0")(flat)
        h = self.block(c, name="out_block")(h)
        return Conv3D(c, at_once=True, name="out")(nn.relu(GroupNorm(GROUPS, name="norm")(h)))


class PictureDecoder(nn.Module):
    """Projection and ``G_2D``: volume in the driver's view -> picture (B, size, size, 3).

    Depth becomes channels, a 1x1 convolution projects, blocks refine at the volume's resolution,
    then nearest upsampling and a block per scale. The published sigmoid in [0, 1] is that range
    stretched to this package's [-1, 1]. ``matte`` asks for a fourth channel, a share in [0, 1].
    """

    size: int
    width: int  # at the volume's resolution
    blocks: int
    up_widths: tuple[int, ...]
    block: Any = NormBlock
    matte: bool = False

    @nn.compact
    def __call__(self, view_BZYXC: jax.Array) -> jax.Array:
        h = Pointwise(self.width, name="project")(channels_from_volume(view_BZYXC))
        for i in range(self.blocks):
            h = self.block(self.width, name=f"block_{i}")(h)
        for i, features in enumerate(self.up_widths):
            h = self.block(features, upsample=h.shape[1] < self.size, name=f"up_{i}")(h)
        h = nn.relu(GroupNorm(GROUPS, name="norm")(h))
        picture = 2.0 * nn.sigmoid(Conv(3, name="out")(h).astype(jnp.float32)) - 1.0
        if not self.matte:
            return picture
        # A convolution of its own: all other weights are those of a model without.
        share = nn.sigmoid(Conv(1, name="matte")(h).astype(jnp.float32))
        return jnp.concatenate([picture, share], -1)
