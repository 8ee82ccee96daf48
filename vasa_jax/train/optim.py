"""The optimiser: AdamW, warm-up, decay to a final fraction, clipping, and the weight average.

Learning rate at update ``n`` of ``N`` with ``w`` warm-up steps and final fraction ``f``::

    n < w    lr * (n + 1) / (w + 1)                              (linear warm-up, never zero)
    cosine   lr * (f + (1 - f) * (1 + cos(pi * p)) / 2)           p = (n - w) / (N - w), in [0, 1]
    linear   lr * (1 - (1 - f) * p)
    constant lr

The average after update ``n`` is ``ema = d * ema + (1 - d) * params`` with
``d = min(ema_decay, (1 + n) / (10 + n))``, so that early averages forget the random start.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vasa_jax.train.state import TrainState

PyTree = Any


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

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.steps < 1 or self.warmup < 0:
            raise ValueError("optim: lr > 0, steps >= 1 and warmup >= 0 expected")
        if not (0 <= self.final_fraction <= 1 and 0 <= self.ema_decay < 1):
            raise ValueError("optim: final_fraction in [0, 1] and ema_decay in [0, 1) expected")
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
