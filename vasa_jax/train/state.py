"""Everything that a training run carries from one step to the next."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

PyTree = Any


@struct.dataclass
class TrainState:
    """The state of a run; a checkpoint is exactly this.

    ``key`` is the root key of the run and never changes: the key of step ``n`` is
    ``fold_in(key, n)``, so any step can be repeated alone and resuming is exact.
    """

    params: PyTree
    opt_state: PyTree
    ema: PyTree  # exponential moving average of params, same tree; what releases ship
    step: jax.Array  # () int32, number of updates done
    key: jax.Array  # () typed PRNG key
    extra: PyTree = struct.field(default_factory=dict)  # anything else a task carries along

    @classmethod
    def create(
        cls,
        params: PyTree,
        tx: optax.GradientTransformation,
        key: jax.Array,
        *,
        extra: PyTree | None = None,
    ) -> TrainState:
        """A fresh state at step 0; the average starts as a copy of ``params``."""
        return cls(
            params=params,
            opt_state=tx.init(params),
            ema=jax.tree.map(jnp.copy, params),
            step=jnp.zeros((), jnp.int32),
            key=key,
            extra={} if extra is None else extra,
        )

    def step_key(self) -> jax.Array:
        """The random key that belongs to the step about to be taken."""
        return jax.random.fold_in(self.key, self.step)
