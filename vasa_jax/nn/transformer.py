"""Pre-norm transformer blocks whose norms listen to the diffusion time.

Each block adds ``gate * f(shift + (1 + scale) * norm(x))`` twice, f = attention, then an MLP. The
six vectors come from one network of the time embedding shared by all blocks plus a small table of
each block's own (adaLN-single, Chen et al. 2023, arXiv 2310.00426): the cost in parameters of
adaLN-zero (Peebles & Xie 2022, arXiv 2212.09748) is paid once instead of once per block.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.nn.attention import SelfAttention
from vasa_jax.nn.stored import stored_gradient


class Block(nn.Module):
    """One transformer block, modulated by ``modulation_B6D`` (shift, scale, gate; twice)."""

    num_heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        modulation_B6D: jax.Array,
        *,
        valid_BL: jax.Array,
        position_L: jax.Array,
    ) -> jax.Array:
        width = x_BLD.shape[-1]
        # Gates start at one: with random small output weights that is a plain pre-norm block, which
        # learns faster at short budgets than gates that start at zero.
        table = self.param("modulation", _modulation_init, (6, width))
        m = (modulation_B6D + table[None]).astype(self.dtype)[:, :, None, :]
        x_BLD = stored_gradient(x_BLD)
        h = _norm(x_BLD) * (1 + m[:, 1]) + m[:, 0]
        attention = SelfAttention(self.num_heads, dtype=self.dtype, name="attention")
        x_BLD = x_BLD + m[:, 2] * attention(h, valid_BL=valid_BL, position_L=position_L)
        x_BLD = stored_gradient(x_BLD)
        h = _norm(x_BLD) * (1 + m[:, 4]) + m[:, 3]
        h = nn.Dense(int(self.mlp_ratio * width), dtype=self.dtype, name="mlp_in")(h)
        h = nn.Dense(width, dtype=self.dtype, name="mlp_out")(nn.gelu(h))
        return x_BLD + m[:, 5] * h


class Transformer(nn.Module):
    """``depth`` blocks and a final norm over tokens, under one time modulation."""

    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, time_BD: jax.Array, *, valid_BL: jax.Array, position_L: jax.Array
    ) -> jax.Array:
        """``time_BD`` embedding of the diffusion time; see ``SelfAttention`` for the rest."""
        batch, width = x_BLD.shape[0], x_BLD.shape[-1]
        modulation = nn.Dense(
            6 * width, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="modulation"
        )(nn.silu(time_BD))
        modulation_B6D = modulation.reshape(batch, 6, width)
        for i in range(self.depth):
            x_BLD = Block(
                self.num_heads, mlp_ratio=self.mlp_ratio, dtype=self.dtype, name=f"block_{i}"
            )(x_BLD, modulation_B6D, valid_BL=valid_BL, position_L=position_L)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x_BLD)


def _norm(x: jax.Array) -> jax.Array:
    """Layer norm without parameters (the modulation brings them); statistics in float32."""
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    var = jnp.square(y - mean).mean(-1, keepdims=True)
    return ((y - mean) * jax.lax.rsqrt(var + 1e-6)).astype(x.dtype)


def _modulation_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    del key
    return jnp.zeros(shape, dtype).at[jnp.asarray([2, 5])].set(1.0)
