"""Keeping XLA:CPU from computing an array anew for every number that is read from it.

XLA:CPU drops ``optimization_barrier`` before it fuses. A product with the identity is exact and is
not fused, so its result lies in memory.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def _product(x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    flat = jax.lax.optimization_barrier(x.reshape(-1, channels))
    same = jnp.matmul(flat, jnp.eye(channels, dtype=x.dtype), precision="highest")
    return jax.lax.optimization_barrier(same).reshape(x.shape)


def stored(x: jax.Array) -> jax.Array:
    """The same numbers, certainly in memory before anybody gathers from them."""
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(x)
    return _product(x)


@jax.custom_jvp
def _stored_tangent(x: jax.Array) -> jax.Array:
    return x


@_stored_tangent.defjvp
def _stored_tangent_jvp(primals, tangents):
    # Transposed, the product of the tangent becomes one of the gradient.
    return primals[0], _product(tangents[0])


def stored_gradient(x: jax.Array) -> jax.Array:
    """The same numbers; on a CPU, the gradient that comes back through here is stored.

    For a sum that grows from layer to layer: each layer's gradient reads that of all layers behind
    it, and XLA:CPU fuses the whole sum into every reader.
    """
    return _stored_tangent(x) if jax.default_backend() == "cpu" else x
