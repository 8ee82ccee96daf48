"""Keeping XLA:CPU from computing an array anew for every number that is read from it.

XLA:CPU drops ``optimization_barrier`` before it fuses. Two things keep it from that: a product with
the identity, which is exact and not fused (``stored``), and a branch of a conditional, whose inputs
and outputs lie in memory (``from_memory``). The second costs nothing but a comparison, and arrays
keep their shape: a fusion that ends in a reshape is one flat loop with divisions for every number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vasa_jax.runtime.target import backend


def _product(x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    flat = jax.lax.optimization_barrier(x.reshape(-1, channels))
    same = jnp.matmul(flat, jnp.eye(channels, dtype=x.dtype), precision="highest")
    return jax.lax.optimization_barrier(same).reshape(x.shape)


def stored(x: jax.Array) -> jax.Array:
    """The same numbers, certainly in memory before anybody gathers from them."""
    if backend() != "cpu":
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
    return _stored_tangent(x) if backend() == "cpu" else x


NOWHERE = 0xFFA5C3D2  # a pattern that no arithmetic makes, nor its upper half: NaNs with a message


def from_memory(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)`` of arrays or trees of them; on a CPU, what goes in and comes out is stored.

    Not under ``vmap`` over the first array: a condition that is mapped stores nothing, though the
    result stays the same. The first array of ``args`` has two or four bytes a number and is no
    constant.
    """
    if backend() != "cpu":
        return f(*jax.lax.optimization_barrier(args))
    first = jax.tree.leaves(args)[0]
    # True, which the compiler cannot know.
    words = {2: jnp.uint16, 4: jnp.uint32}[first.dtype.itemsize]
    word = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(first).reshape(-1)[0], words)
    nowhere = words(NOWHERE >> (32 - 8 * first.dtype.itemsize))

    def never(*args: Any) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, *args))

    return jax.lax.cond(word != nowhere, f, never, *args)
