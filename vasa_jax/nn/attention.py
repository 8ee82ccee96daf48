"""Multi-head self-attention over tokens, with a key mask and rotary position codes.

``softmax(q k^T / sqrt(K)) v`` with the softmax in float32. Rotary codes (Su et al. 2021,
arXiv 2104.09864) turn queries and keys by an angle proportional to the position a token states, so
two tokens that state the same frame index (audio frame i, motion frame i) are aligned whatever
their places in the sequence.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

NEG_INF = -1e9  # finite, so that a row without any valid key stays finite


def rotary(x_BLHK: jax.Array, position_L: jax.Array, *, max_period: float = 200.0) -> jax.Array:
    """``x`` with each pair of channels turned by ``position / max_period**(2j/K)``.

    ``position_L`` are frame indices (any real numbers, shared by the batch).
    """
    half = x_BLHK.shape[-1] // 2
    freq = max_period ** (-np.arange(half, dtype=np.float32) / half)
    angle_LK = position_L.astype(jnp.float32)[:, None] * freq[None, :]
    cos, sin = jnp.cos(angle_LK)[None, :, None, :], jnp.sin(angle_LK)[None, :, None, :]
    a, b = jnp.split(x_BLHK, 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.astype(x_BLHK.dtype)


class SelfAttention(nn.Module):
    """Self-attention of ``num_heads`` heads; keys that are not valid are never looked at."""

    num_heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, *, valid_BL: jax.Array, position_L: jax.Array
    ) -> jax.Array:
        """``x_BLD`` tokens; ``valid_BL`` bool, False hides a token from all others;
        ``position_L`` frame index of each token."""
        width = x_BLD.shape[-1]
        if width % (2 * self.num_heads):
            raise ValueError(f"width {width} must be a multiple of 2 * {self.num_heads} heads")
        head = width // self.num_heads
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x_BLD)
        # The gradient of a split is one joined array; of three indices, a sum of three padded ones.
        q_BLHK, k_BLHK, v_BLHK = (
            part.reshape(*part.shape[:2], self.num_heads, head) for part in jnp.split(qkv, 3, -1)
        )
        q_BLHK, k_BLHK = rotary(q_BLHK, position_L), rotary(k_BLHK, position_L)
        logits = jnp.einsum("blhk,bmhk->bhlm", q_BLHK, k_BLHK).astype(jnp.float32)
        logits = logits * (head**-0.5) + jnp.where(valid_BL, 0.0, NEG_INF)[:, None, None, :]
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        # Heads before tokens: of "bhlm,bmhk->blhk" XLA:CPU computes the transposed product, which
        # takes several times as long.
        out = jnp.swapaxes(weights @ jnp.swapaxes(v_BLHK, 1, 2), 1, 2).reshape(x_BLD.shape)
        return nn.Dense(width, dtype=self.dtype, name="out")(out)
