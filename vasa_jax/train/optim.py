"""The optimiser: AdamW, warm-up, decay to a final fraction, clipping, and the weight average;
gradients in one piece or summed over microbatches.

Learning rate at update ``n`` of ``N`` with ``w`` warm-up steps and final fraction ``f``::

    n < w    lr * (n + 1) / (w + 1)                              (linear warm-up, never zero)
    cosine   lr * (f + (1 - f) * (1 + cos(pi * p)) / 2)           p = (n - w) / (N - w), in [0, 1]
    linear   lr * (1 - (1 - f) * p)
    constant lr

The average after update ``n`` is ``ema = d * ema + (1 - d) * params`` with
``d = min(ema_decay, (1 + n) / (10 + n))``, so that early averages forget the random start.

A loss that is a mean over examples has the same gradient in ``accumulate`` microbatches as in one
batch (up to rounding), at a fraction of the memory for activations. So that random numbers do not
differ either, tasks draw them for the whole batch before the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import batch_rows, row_mask
from vasa_jax.train.state import TrainState

PyTree = Any
Loss = Callable[[PyTree, PyTree], tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the parameters move."""

    lr: float = 3e-4  # peak
    steps: int = 10_000  # length of the schedule, and of the run unless --steps stops it earlier
    warmup: int = 100
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final_fraction: float = 0.05
    clip_norm: float = 1.0  # of the global gradient norm; 0 switches clipping off
    weight_decay: float = 1e-2  # only on arrays of two or more axes (no biases, no norm scales)
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    ema_decay: float = 0.999  # 0: the average is the parameters themselves
    accumulate: int = 1  # microbatches that a batch is cut into; one update for all of them

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.steps < 1 or self.warmup < 0:
            raise ValueError("optim: lr > 0, steps >= 1 and warmup >= 0 expected")
        if not (0 <= self.final_fraction <= 1 and 0 <= self.ema_decay < 1):
            raise ValueError("optim: final_fraction in [0, 1] and ema_decay in [0, 1) expected")
        if self.accumulate < 1:
            raise ValueError("optim: accumulate is a number of microbatches, 1 or more")
        if self.decay not in ("cosine", "linear", "constant"):
            raise ValueError(f"optim: decay is cosine, linear or constant, not {self.decay!r}")


def learning_rate(cfg: OptimConfig, step: jax.Array | int) -> jax.Array:
    """Learning rate of update number ``step`` (0-based), as in the module header; () float32."""
    n = jnp.asarray(step, jnp.float32)
    warm = (n + 1.0) / (cfg.warmup + 1.0)
    p = jnp.clip((n - cfg.warmup) / max(cfg.steps - cfg.warmup, 1), 0.0, 1.0)
    f = cfg.final_fraction
    if cfg.decay == "cosine":
        main = f + (1.0 - f) * 0.5 * (1.0 + jnp.cos(jnp.pi * p))
    elif cfg.decay == "linear":
        main = 1.0 - (1.0 - f) * p
    else:
        main = jnp.ones_like(p)
    return cfg.lr * jnp.where(n < cfg.warmup, warm, main)


def make_optimizer(cfg: OptimConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with the scheduled rate."""
    parts = [optax.clip_by_global_norm(cfg.clip_norm)] if cfg.clip_norm > 0 else []
    parts.append(
        optax.adamw(
            lambda count: learning_rate(cfg, count),
            b1=cfg.b1,
            b2=cfg.b2,
            eps=cfg.eps,
            weight_decay=cfg.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: jnp.ndim(x) >= 2, params),
        )
    )
    return optax.chain(*parts)


def update_ema(cfg: OptimConfig, ema: PyTree, params: PyTree, step: jax.Array) -> PyTree:
    """One step of the weight average (module header); ``step`` counts updates done before."""
    n = jnp.asarray(step, jnp.float32)
    d = jnp.minimum(cfg.ema_decay, (1.0 + n) / (10.0 + n))
    return jax.tree.map(lambda e, p: (d * e + (1.0 - d) * p).astype(e.dtype), ema, params)


def apply_gradients(
    cfg: OptimConfig, tx: optax.GradientTransformation, state: TrainState, grads: PyTree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Update parameters, optimiser, average and step count.

    ``tx`` is ``make_optimizer(cfg)`` (made once outside). Call inside jit. Returns the new state
    and the metrics ``grad_norm`` (before clipping) and ``lr``.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        "grad_norm": jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))),
        "lr": learning_rate(cfg, state.step),
    }
    new = state.replace(  # type: ignore[attr-defined]  # flax.struct adds replace()
        params=params,
        opt_state=opt_state,
        ema=update_ema(cfg, state.ema, params, state.step),
        step=state.step + 1,
    )
    return new, metrics


def gradients(
    loss: Loss, params: PyTree, batch: PyTree, *, parts: int = 1, shared: Sequence[str] = ()
) -> tuple[PyTree, dict[str, jax.Array]]:
    """Gradients of ``loss(params, batch) -> (value, terms)`` and its terms, "loss" among them.

    With ``parts`` > 1 the rows of ``batch`` are cut into microbatches, one after the other in a
    ``lax.scan``, and gradients and terms are means over them. Microbatch ``i`` has the rows ``i,
    i + parts, ...``, so that each device cuts its own rows; what lies under the names ``shared``
    goes whole to each. UserError when the rows do not divide.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (value, terms), grads = value_and_grad(params, batch)
        return grads, {**terms, "loss": value}
    rows = batch_rows(batch, shared)
    if rows % parts:
        raise UserError(f"optim.accumulate={parts} does not divide a batch of {rows}")
    leaves, tree = jax.tree.flatten(batch)
    is_row = jax.tree.leaves(row_mask(batch, shared))

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.moveaxis(x.reshape(rows // parts, parts, *x.shape[1:]), 1, 0)

    pieces = [cut(x) for x, yes in zip(leaves, is_row, strict=True) if yes]

    def body(total: PyTree, piece: list[jax.Array]) -> tuple[PyTree, dict[str, jax.Array]]:
        rest = iter(piece)
        own = [next(rest) if yes else x for x, yes in zip(leaves, is_row, strict=True)]
        (value, terms), grads = value_and_grad(params, jax.tree.unflatten(tree, own))
        return jax.tree.map(jnp.add, total, grads), {**terms, "loss": value}

    total, metrics = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), pieces)
    return jax.tree.map(lambda g: g / parts, total), jax.tree.map(lambda m: m.mean(0), metrics)


def descend(
    cfg: OptimConfig,
    tx: optax.GradientTransformation,
    loss: Loss,
    state: TrainState,
    batch: PyTree,
    *,
    shared: Sequence[str] = (),
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of ``state`` by ``loss(params, batch)``: what a task's ``update`` ends with."""
    grads, terms = gradients(loss, state.params, batch, parts=cfg.accumulate, shared=shared)
    state, metrics = apply_gradients(cfg, tx, state, grads)
    return state, {**terms, **metrics}
