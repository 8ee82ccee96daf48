"""The compiled step of a task: jitted from outside, with every array where the mesh wants it.

A task's ``update`` is a pure function; here it gets its step's key, a donated state, and shardings
of what goes out that equal those of what comes in. XLA derives the rest (gathers of parameters,
sums of gradients) from there.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from vasa_jax.core.mesh import MeshConfig, place, replicated, shardings
from vasa_jax.train.cost import StepCost, step_cost
from vasa_jax.train.state import TrainState

Batch = Any
Metrics = dict[str, jax.Array]

# Executables and their cost, as long as the task lives: a second run of it need not compile.
_KNOWN: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Any, StepCost]]] = (
    weakref.WeakKeyDictionary()
)


class TrainStep:
    """``(state, batch) -> (state, metrics)`` of a task on a mesh. The state is donated.

    ``cost`` is known after ``prepare``, or the first call.
    """

    def __init__(self, task: Any, mesh: Mesh | AbstractMesh, cfg: MeshConfig, seed: int = 0):
        self.task, self.mesh, self._cfg = task, mesh, cfg
        self._key = jax.random.key(seed)
        self.shapes: TrainState = jax.eval_shape(task.init, self._key)
        self.shardings: TrainState = shardings(cfg, mesh, self.shapes, self.shapes.params)
        self.cost: StepCost | None = None
        self._constants = getattr(task, "constants", ())
        self._jitted = jax.jit(
            self._pure, donate_argnums=0, out_shardings=(self.shardings, replicated(mesh))
        )
        if isinstance(mesh, Mesh):
            self._constants = place(self._constants, replicated(mesh))

    def _pure(self, state: TrainState, batch: Batch, constants: Any) -> tuple[TrainState, Metrics]:
        return self.task.update(state, batch, state.step_key(), constants)

    def init(self) -> TrainState:
        """The state at step 0, each device making its own part."""
        return jax.jit(self.task.init, out_shardings=self.shardings)(self._key)

    def like(self) -> TrainState:
        """Shapes of the state, with where they lie: what a checkpoint is restored into."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            self.shapes, self.shardings,
        )  # fmt: skip

    def trace(self, batch: Batch) -> Any:
        """The step traced for arrays or shapes like ``batch``; ``.lower()`` it for any platform."""
        constants = self._constants
        if not isinstance(self.mesh, Mesh):
            everywhere = replicated(self.mesh)
            constants = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), constants
            )
        return self._jitted.trace(self.like(), batch, constants)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return self.prepare(batch)(state, batch, self._constants)

    def prepare(self, batch: Batch) -> Any:
        """The program for batches like this one, compiled unless it was before; sets ``cost``."""
        form = tuple((x.shape, x.dtype) for x in jax.tree.leaves(batch))
        known = _KNOWN.setdefault(self.task, {})
        name = (self.mesh, self._cfg, form)
        if name not in known:
            known[name] = self._compile(batch)
        compiled, cost = known[name]
        self.cost = self.cost or cost
        return compiled

    def _compile(self, batch: Batch) -> tuple[Any, StepCost]:
        began = time.monotonic()
        traced = self.trace(batch)
        compiled = traced.lower().compile()
        seconds = time.monotonic() - began
        cost = step_cost(traced.jaxpr, compiled, self.shapes, self.shardings, seconds)
        return compiled, cost
