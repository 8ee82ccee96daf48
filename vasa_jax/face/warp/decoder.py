"""Warp generators, canonical volume and decoder: (appearance, geometry) -> picture.

The volume path is MegaPortraits': rigid then non-rigid sampling to canonical space, ``G_3D``, and
back towards the driver. The lite decoder adds the *appearance skip*: the portrait moved by the
analytic flow of the head, which the net only has to correct, blend and complete.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.core.types import HEAD_WIDTH_CM
from vasa_jax.face.head.head import Pose
from vasa_jax.face.warp.geometry import Maps
from vasa_jax.nn.conv import Conv, Conv3D, ResBlock
from vasa_jax.nn.fill import COARSE, cells, spread
from vasa_jax.nn.norm import AdaptiveGroupNorm, GroupNorm
from vasa_jax.nn.resample import binomial, depth_to_space, space_to_depth, upsample_nearest
from vasa_jax.nn.warp import Points, centres, sample_twice, shifted

BOX_CM = 1.15 * HEAD_WIDTH_CM  # half side of the canonical cube around the head's origin


class WarpGenerator(nn.Module):
    """Non-rigid offset field (B, Z, Y, X, 3) in [-1, 1] units from a code (B, K).

    MegaPortraits W_{d->}: a small 3D net whose group norms are driven by the summed dynamics and
    identity codes. Starts at zero motion.
    """

    shape: tuple[int, int, int]
    width: int

    @nn.compact
    def __call__(self, code_BK: jax.Array) -> jax.Array:
        z, y, x = (n // 2 for n in self.shape)  # made at half size: non-rigid motion is smooth
        b = code_BK.shape[0]
        start = (max(z // 4, 1), y // 4, x // 4)
        h = nn.Dense(start[0] * start[1] * start[2] * self.width, name="seed")(code_BK)
        h = h.reshape(b, *start, self.width)
        for i in range(2):
            h = upsample_nearest(h)
            h = Conv3D(self.width, name=f"conv_{i}")(
                nn.silu(AdaptiveGroupNorm(name=f"norm_{i}")(h, code_BK))
            )
        offset = nn.Dense(3, kernel_init=nn.initializers.zeros, name="out")(nn.silu(h))
        return 0.3 * jnp.tanh(jax.image.resize(offset, (b, *self.shape, 3), "linear"))


class VolumeNet(nn.Module):
    """``G_3D``: refines the canonical volume, residual."""

    blocks: int

    @nn.compact
    def __call__(self, v_BZYXC: jax.Array) -> jax.Array:
        c = v_BZYXC.shape[-1]
        for i in range(self.blocks):
            h = Conv3D(c, name=f"conv_{i}a")(nn.silu(GroupNorm(name=f"norm_{i}a")(v_BZYXC)))
            h = Conv3D(c, name=f"conv_{i}b")(nn.silu(GroupNorm(name=f"norm_{i}b")(h)))
            v_BZYXC = v_BZYXC + h
        return v_BZYXC


def to_view(points: Points, pose: Pose) -> Points:
    """Canonical points [-1, 1]^3 -> view space: x, y of the crop, z as depth / BOX_CM."""
    (x, y, z), (cx, cy, s), r = points, pose.placement, pose.rotation
    right, up, near = (r[k, 0] * x - r[k, 1] * y + r[k, 2] * z for k in range(3))
    return cx + s * BOX_CM * right, cy - s * BOX_CM * up, near


def from_view(points: Points, pose: Pose) -> Points:
    """Inverse of ``to_view``."""
    (x, y, z), (cx, cy, s), r = points, pose.placement, pose.rotation
    right, up = (x - cx) / (s * BOX_CM), (cy - y) / (s * BOX_CM)
    x, y, z = (r[0, k] * right + r[1, k] * up + r[2, k] * z for k in range(3))
    return x, -y, z


def to_canonical(posed_BZYXC: jax.Array, pose: Pose, offset_BZYX3: jax.Array) -> jax.Array:
    """Rigid, then non-rigid sampling of posed volumes into canonical space."""
    cells = centres(*posed_BZYXC.shape[1:4])
    rigid = jax.vmap(lambda p: to_view(cells, p))(pose)
    return sample_twice(posed_BZYXC, rigid, shifted(offset_BZYX3))


def from_canonical(volume_BZYXC: jax.Array, pose: Pose, offset_BZYX3: jax.Array) -> jax.Array:
    """Non-rigid, then rigid sampling of canonical volumes into each driver's view."""
    cells = centres(*volume_BZYXC.shape[1:4])
    rigid = jax.vmap(lambda p: from_view(cells, p))(pose)
    return sample_twice(volume_BZYXC, shifted(offset_BZYX3), rigid)


def flatten_depth(volume_BZYXC: jax.Array) -> jax.Array:
    """(B, Z, Y, X, C) in view space -> (B, Y, X, Z*C): what a 1x1 convolution can project."""
    b, z, y, x, c = volume_BZYXC.shape
    return volume_BZYXC.transpose(0, 2, 3, 1, 4).reshape(b, y, x, z * c)


def blend_prior(maps: Maps) -> jax.Array:
    """Logits (B, Y, X, 3) before any learning: moved portrait, moved skin layer, painted colour.

    Skin that is stretched over what was an opening (a closing lid) takes the skin layer; mouth
    interior and surfaces the portrait does not show have to be painted.
    """
    painted = 4.0 * jnp.maximum(maps.mouth_interior, 0.4 * maps.hidden) - 2.0
    stretched = jnp.clip((maps.stretch - 0.5) / 0.7, 0.0, 1.0) * maps.skin
    return jnp.stack([jnp.full_like(painted, 2.0), 6.0 * stretched - 2.0, painted], -1)


def _softmax3(logits_BYX3: jax.Array) -> jax.Array:
    """Softmax over three channels, written out: XLA:CPU reduces over so short an axis slowly."""
    a, b, c = (logits_BYX3[..., k : k + 1] for k in range(3))
    shifted = logits_BYX3 - jax.lax.stop_gradient(jnp.maximum(jnp.maximum(a, b), c))
    power = jnp.exp(shifted)
    return power / (power[..., :1] + power[..., 1:2] + power[..., 2:])


def on_head(cover_BYX: jax.Array) -> jax.Array:
    """Weight of the head's own pixels, which fades out around it within a cell of ``fill``."""
    share = jax.vmap(cells)(cover_BYX) * COARSE**-2
    return jax.vmap(spread)(share)


def _only_where(share_BYX1: jax.Array, weight_BYX3: jax.Array) -> jax.Array:
    """Blend weights that leave all to the first picture where ``share`` is 0."""
    kept = share_BYX1 * weight_BYX3
    return kept + (1.0 - share_BYX1) * jnp.array([1.0, 0.0, 0.0])


class Decoder(nn.Module):
    """``G_2D`` of the lite model: a small U-Net at half resolution with sub-pixel output.

    No normalisation over space: a window of the picture gives the same result as the whole, which
    is what lets stage 1 train on windows, and statistics cost time on a CPU.
    """

    widths: tuple[int, int, int]

    @nn.compact
    def __call__(self, warped_BYX6, maps: Maps, volume_BYXK) -> dict[str, jax.Array]:
        w0, w1, w2 = self.widths
        # Planes side by side and then transposed: stacked as channels at once takes twice as long.
        maps_BYXM = jnp.stack(maps, 1).transpose(0, 2, 3, 1)
        x = space_to_depth(jnp.concatenate([warped_BYX6, maps_BYXM], -1), 2)
        # Few and narrow layers at half resolution: on two CPU cores they cost the most per FLOP.
        h0 = nn.Conv(w0, (1, 1), name="stem")(x)
        h1 = ResBlock(w1, norm=False, name="enc_1")(
            nn.Conv(w1, (1, 1), name="down_1")(space_to_depth(h0, 2))
        )
        h2 = nn.Conv(w2, (1, 1), name="down_2")(space_to_depth(nn.silu(h1), 2))
        v = nn.Conv(w2, (1, 1), name="project")(volume_BYXK)
        while v.shape[1] < h2.shape[1]:
            v = upsample_nearest(v)
        h2 = ResBlock(w2, norm=False, name="mid")(
            nn.Conv(w2, (1, 1), name="merge")(jnp.concatenate([h2, v], -1))
        )
        h1 = h1 + Conv(w1, upsample=True, name="up_1")(nn.silu(h2))
        h1 = nn.silu(ResBlock(w1, norm=False, name="dec_1")(h1))
        # Sub-pixel layers stipple what training pairs say little about: this one hair, that of the
        # output teeth.
        h0 = h0 + binomial(depth_to_space(Conv(4 * w0, name="up_0")(h1), 2))
        h0 = nn.silu(ResBlock(w0, norm=False, name="dec_0")(h0))
        out = Conv(24, kernel_init=nn.initializers.normal(1e-3), name="out")(h0)
        out = binomial(depth_to_space(out, 2))
        painted = jnp.tanh(out[..., :3] + 0.4 * jnp.array([-1.0, -1.6, -1.6]))
        weight = _softmax3(3.0 * out[..., 3:] + blend_prior(maps))
        # Beside the head the portrait moves by geometry alone: no background ever swims.
        weight = _only_where(on_head(maps.cover)[..., None], weight)
        image = (
            weight[..., :1] * warped_BYX6[..., :3]
            + weight[..., 1:2] * warped_BYX6[..., 3:]
            + weight[..., 2:] * painted
        )
        return {"image": image, "weight": weight, "painted": painted}
