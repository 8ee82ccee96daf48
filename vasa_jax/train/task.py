"""What the loop asks of a stage of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import jax

from vasa_jax.train.state import TrainState

PyTree = Any
Batch = Any


class Task(Protocol):
    """What a stage of training has to say. The rest is optional, see below.

    Optional attributes:

    - ``constants``: a pytree of arrays that ``update`` needs beside the state (a teacher, a head);
      they are copied to every device once, and are no part of checkpoints;
    - ``batch_size``: examples in a batch, on all devices together;
    - ``shared``: names of batch entries that belong to the whole batch, not to its examples.

    Optional methods, called if they are there:

    - ``initial_params(params) -> params``: start from other weights (fresh runs only);
    - ``pictures(state, step) -> dict[str, uint8 image]``: drawn at the start and on the interval;
    - ``evaluate(state) -> dict[str, float]``: held-out numbers;
    - ``stats() -> dict``: JSON-able statistics that inference needs, kept as ``stats.json``.

    Pictures and evaluation get a state of whole arrays on one device. An older form of ``update``
    is ``step(state, batch, key)``, jitted inside; it runs everywhere too, but the loop cannot tell
    what it costs, nor hold XLA to the shardings within.
    """

    def init(self, key: jax.Array) -> TrainState:
        """The state at step 0. Must be traceable (each device makes its own part)."""

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array, constants: PyTree
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update and scalar metrics, among them "loss". A pure, traceable function.

        ``key`` belongs to this step alone. Most tasks end in ``optim.descend``, which also sums
        over microbatches.
        """

    def batches(self, start_step: int, rows: slice | None = None) -> Iterator[Batch]:
        """Batches of steps start_step, start_step + 1, ...: a pure function of (seed, step).

        A pytree of numpy arrays with the examples on the first axis; with ``rows`` only those (the
        same as in the whole batch), which is how several processes share the work. A task may leave
        ``rows`` out; then each process makes the whole and keeps its part. Runs in its own thread,
        so it must not share buffers between batches.
        """
