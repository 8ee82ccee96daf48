"""Codes for numbers: diffusion time and frame index."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def sinusoid(x: jax.Array, dim: int, *, max_period: float, min_period: float = 1.0) -> jax.Array:
    """Sines and cosines of ``x`` at ``dim // 2`` geometric periods; shape ``x.shape + (dim,)``.

    Periods are in units of ``x`` divided by 2 pi, as in Vaswani et al. 2017.
    """
    half = dim // 2
    ratio = np.arange(half, dtype=np.float32) / max(half - 1, 1)
    freq = 1.0 / (min_period * (max_period / min_period) ** ratio)
    x = jnp.asarray(x, jnp.float32)[..., None]
    angle = x * freq.astype(np.float32).reshape((1,) * (x.ndim - 1) + (half,))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class TimeEmbedding(nn.Module):
    """A vector for the diffusion time t in [0, 1] (1 is noise), through a two-layer network."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, t_B: jax.Array) -> jax.Array:
        # 1000 t spans the usual range of step counts; periods from 1 to 1000 steps.
        code = sinusoid(1000.0 * t_B, 128, max_period=1000.0, min_period=4.0)
        h = nn.Dense(self.width, dtype=self.dtype, name="in")(code.astype(self.dtype))
        return nn.Dense(self.width, dtype=self.dtype, name="out")(nn.silu(h))
