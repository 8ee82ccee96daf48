"""Stage-1 encoders: portrait -> posed appearance volume and identity code; motion -> codes.

``E_app`` predicts a volume in the portrait's own pose, which is then moved to canonical space
(MegaPortraits section 3; VASA-1 section 3.1). ``z_dyn`` of the lite model starts from expression
weights and gaze and adds learned dimensions (design section 4).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.nn.conv import Conv, ResBlock
from vasa_jax.nn.norm import GroupNorm
from vasa_jax.nn.resample import space_to_depth


class AppearanceEncoder(nn.Module):
    """Portrait (B, Y, X, 3) and its openings (B, Y, X, 2) -> posed volume and identity code."""

    volume: tuple[int, int, int, int]  # Z Y X C
    width: int
    code: int

    @nn.compact
    def __call__(self, image_BYXC: jax.Array, opening_BYX2: jax.Array):
        z, y, _, c = self.volume
        h = space_to_depth(jnp.concatenate([image_BYXC, opening_BYX2], -1), 4)
        h = Conv(self.width, name="stem")(h)
        features = self.width
        while h.shape[1] > y:
            h = ResBlock(features, name=f"res_{h.shape[1]}")(h)
            features = min(2 * features, 16 * self.width)
            h = nn.Conv(features, (1, 1), name=f"down_{h.shape[1]}")(space_to_depth(h, 2))
        h = ResBlock(features, name="res_last")(h)
        volume = nn.Conv(z * c, (1, 1), name="to_volume")(nn.silu(GroupNorm(name="norm")(h)))
        b, vy, vx, _ = volume.shape
        posed_BZYXC = volume.reshape(b, vy, vx, z, c).transpose(0, 3, 1, 2, 4)
        g = ResBlock(features, name="res_identity")(
            nn.Conv(features, (1, 1), name="down_identity")(space_to_depth(h, 2))
        )
        z_id = nn.Dense(self.code, name="identity")(nn.silu(g).mean((1, 2)))
        return posed_BZYXC, z_id


class DynamicsEncoder(nn.Module):
    """``z_dyn`` (B, code): what expression weights (B, 45) and eye direction (B, 2) mean here."""

    code: int

    @nn.compact
    def __call__(self, expression_BE: jax.Array, gaze_B2: jax.Array) -> jax.Array:
        h = nn.Dense(2 * self.code, name="in")(jnp.concatenate([expression_BE, gaze_B2], -1))
        return nn.Dense(self.code, name="out")(nn.silu(h))
