"""Rematerialisation that holds on a CPU, too: activations made again instead of kept.

``jax.checkpoint`` (Chen et al. 2016, arXiv 1604.06174) keeps the second computation apart from the
first by an ``optimization_barrier``, which XLA:CPU drops before it looks for common subexpressions:
the two become one again, and everything is kept. Here the second computation lies in a branch of a
conditional, which is a program of its own, is run when the gradient has arrived, and frees its
memory when it has returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from vasa_jax.runtime.target import backend


def recomputed(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of arrays (or trees of them), computed once more for its gradient.

    The same values and gradients as ``f``; what ``f`` closes over gets no gradient.
    """

    def call(*args: Any) -> Any:
        return _branched(f, args) if backend() == "cpu" else jax.checkpoint(f)(*args)

    return call


def recomputed_block(kind: type[nn.Module]) -> type[nn.Module]:
    """A module like ``kind`` (no random numbers, parameters only), recomputed for its gradient.

    Parameters have the same names. Off the CPU, ``nn.remat``.
    """
    if backend() != "cpu":
        return nn.remat(kind)

    class Recomputed(kind):  # type: ignore[valid-type, misc]
        def __call__(self, *args: Any) -> Any:
            if self.is_initializing():
                return super().__call__(*args)
            fields = (f.name for f in dataclasses.fields(kind) if f.name not in ("parent", "name"))
            block = kind(**{name: getattr(self, name) for name in fields}, parent=None)
            return recomputed(lambda params, *args: block.apply({"params": params}, *args))(
                self.variables["params"], *args
            )

    return Recomputed


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Which leaves of the arguments a gradient is asked for."""

    leaves: tuple[bool, ...]


def _branched(f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``f(*args)``, its gradient computed in a branch of a conditional."""
    given, tree = jax.tree.flatten(args)

    @jax.custom_vjp
    def again(*leaves: Any) -> Any:
        return f(*jax.tree.unflatten(tree, leaves))

    def forward(*told: CustomVJPPrimal) -> tuple[Any, tuple[Any, _Wanted]]:
        leaves = [x.value for x in told]
        return again(*leaves), (leaves, _Wanted(tuple(x.perturbed for x in told)))

    def backward(kept: tuple[list[Any], _Wanted], gradient: Any) -> tuple[Any, ...]:
        leaves, wanted = kept
        moved = [x for x, w in zip(leaves, wanted.leaves, strict=True) if w]
        gradient = jax.tree.map(
            lambda g: jnp.zeros(g.shape, g.dtype) if isinstance(g, SymbolicZero) else g,
            gradient, is_leaf=lambda g: isinstance(g, SymbolicZero),
        )  # fmt: skip

        def of_moved(*moved: jax.Array) -> Any:
            rest = iter(moved)
            mixed = zip(leaves, wanted.leaves, strict=True)
            return f(*jax.tree.unflatten(tree, [next(rest) if w else x for x, w in mixed]))

        found = iter(
            jax.lax.cond(
                _unforeseeable(gradient),
                lambda moved, g: jax.vjp(of_moved, *moved)[1](g),
                lambda moved, g: tuple(jnp.zeros_like(x) for x in moved),
                moved, gradient,
            )
        )  # fmt: skip
        return tuple(next(found) if w else None for w in wanted.leaves)

    again.defvjp(forward, backward, symbolic_zeros=True)
    return again(*given)


def _unforeseeable(tree: Any) -> jax.Array:
    """True, which the compiler cannot know."""
    some = jax.tree.leaves(tree)[0]
    one = jax.lax.index_in_dim(some.reshape(-1), 0, keepdims=False).astype(jnp.float32)
    return (jax.lax.bitcast_convert_type(one, jnp.int32) | 1) != 0
