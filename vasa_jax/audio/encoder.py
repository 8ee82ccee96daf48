"""A small convolutional encoder from features to one token per video frame, trained with the model.

Residual blocks of a convolution over frames and a two-layer network. Every convolution sees
``left`` frames back and ``right`` ahead, so the whole encoder's view of the future is
``num_blocks * right`` frames: the declared look-ahead. Frames that are not valid (not heard yet,
cut off, or dropped for guidance) are replaced by a learned vector *before* anything is computed, so
whatever they hold cannot leak.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Size and reach of the audio encoder."""

    width: int = 256
    hidden: int = 384  # of the two-layer network that reads one frame
    num_blocks: int = 3
    left: int = 2  # frames back per block
    right: int = 1  # frames ahead per block

    @property
    def lookahead_frames(self) -> int:
        """Frames after a frame that its token sees."""
        return self.num_blocks * self.right


class AudioEncoder(nn.Module):
    """Features ``(B, T, D)`` and their validity ``(B, T)`` to tokens ``(B, T, width)``."""

    cfg: EncoderConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features_BTD: jax.Array, valid_BT: jax.Array) -> jax.Array:
        c = self.cfg
        null = self.param("null", nn.initializers.zeros, (features_BTD.shape[-1],))
        x = jnp.where(valid_BT[..., None], features_BTD, null[None, None]).astype(self.dtype)
        mark = valid_BT[..., None].astype(self.dtype)
        x = nn.Dense(c.hidden, dtype=self.dtype, name="read_in")(jnp.concatenate([x, mark], -1))
        x = nn.Dense(c.width, dtype=self.dtype, name="read_out")(nn.gelu(x))
        for i in range(c.num_blocks):
            h = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            h = nn.Conv(
                c.width, (c.left + 1 + c.right,), padding=[(c.left, c.right)],
                dtype=self.dtype, name=f"conv_{i}",
            )(h)  # fmt: skip
            x = x + nn.Dense(c.width, dtype=self.dtype, name=f"mix_{i}")(nn.gelu(h))
        x = nn.LayerNorm(dtype=self.dtype, name="norm_out")(x)
        absent = self.param("absent", nn.initializers.normal(0.02), (c.width,))
        return jnp.where(valid_BT[..., None], x, absent.astype(self.dtype)[None, None])
