"""Several processes that train as one: start, who writes, common decisions, gathered states.

All processes run the same program on the same config. Each loads its rows of every batch; process 0
alone writes logs, pictures and config; checkpoints are written by all together (Orbax). What
depends on one process's clock or signals (save now? stop?) is voted on, for a process that leaves
the loop alone would leave the others waiting for ever.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import AXES, batch_sharding, replicated
from vasa_jax.train.state import TrainState

PyTree = Any


def initialize(
    *, coordinator: str | None, processes: int | None, process_id: int | None, cluster: bool = False
) -> None:
    """Join the other processes; nothing happens when nothing is given.

    ``cluster`` asks JAX to find them itself (SLURM, Kubernetes, Open MPI, TPU pods); a process that
    is alone on its host takes all of the host's devices, of several each takes one. Else all of
    ``coordinator`` ("host:port" of process 0), ``processes`` and ``process_id`` are needed. Call it
    before anything asks JAX for its devices. UserError when it does not come to pass.
    """
    given = (coordinator, processes, process_id)
    if not cluster and given == (None, None, None):
        return
    if not cluster:
        if coordinator is None or processes is None or process_id is None:
            raise UserError("--coordinator, --processes and --process-id belong together")
        if ":" not in coordinator:
            raise UserError(f"--coordinator wants HOST:PORT, got {coordinator!r}")
        if not 0 <= process_id < processes:
            raise UserError(f"--process-id is 0 to {processes - 1}, not {process_id}")
    try:
        # Unless told, JAX shows a process of SLURM or Open MPI one device. None of them named means
        # that none is hidden.
        shown: list[int] | None = [] if cluster and processes_on_host(os.environ) == 1 else None
        jax.distributed.initialize(coordinator, processes, process_id, local_device_ids=shown)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        where = "the cluster was not recognised" if cluster else f"no contact over {coordinator}"
        raise UserError(f"{where}: {first}") from error


def processes_on_host(environment: Mapping[str, str]) -> int | None:
    """How many processes of this job run on this host, by SLURM or Open MPI; None: not known.

    SLURM writes "2(x3),1" for three hosts with two and one with one.
    """
    counted = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
    if counted.isdigit():
        return int(counted)
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    text = next((environment[name] for name in names if environment.get(name)), "")
    counts = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(times or 1))
    ]
    host = int(environment.get("SLURM_NODEID") or 0)
    return counts[host] if host < len(counts) else None


def is_main() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"vasa_jax {name}")


def broadcast(value: int) -> int:
    """The number that process 0 says."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


class Votes:
    """Yes-or-no questions that one process's yes decides for all.

    ``cast`` gives the outcome of the vote before, so that nobody waits for the devices; with one
    process it is the answer itself, at once.
    """

    def __init__(self, mesh: Mesh, questions: int):
        self._mesh, self._before = mesh, np.zeros(questions, bool)
        self._pending: jax.Array | None = None
        self._alone = jax.process_count() == 1
        self._count = jax.jit(lambda x: x.max(0), out_shardings=replicated(mesh))

    def cast(self, *answers: bool) -> list[bool]:
        """Ask; every process calls it equally often."""
        if self._alone:
            return list(answers)
        before = self._pending
        mine = np.tile(np.asarray(answers, np.int32), (len(self._mesh.local_devices), 1))
        shape = (self._mesh.size, len(answers))
        sharding = batch_sharding(self._mesh)
        self._pending = self._count(jax.make_array_from_process_local_data(sharding, mine, shape))
        return [False] * len(answers) if before is None else list(np.asarray(before) > 0)


def gathered(state: TrainState, mesh: Mesh) -> TrainState:
    """The state as whole arrays on one device of this process (the optimiser's left as it is).

    Pictures and evaluation get this, so that they need not know of meshes. All processes call it.
    """
    if mesh.size == 1:
        return state
    wanted = (state.params, state.ema, state.step, state.key, state.extra)
    copies = _copier(mesh)(wanted)
    params, ema, step, key, extra = jax.tree.map(lambda x: x.addressable_data(0), copies)
    return dataclasses.replace(state, params=params, ema=ema, step=step, key=key, extra=extra)


@functools.lru_cache(maxsize=4)
def _copier(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=replicated(mesh))


def local_rows(leaf: Any) -> np.ndarray:
    """What this process has of an array: all of it, or its rows of a batch."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    parts = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def describe(mesh: Mesh) -> str:
    """The mesh in words, for the log."""
    sizes = " x ".join(f"{name} {mesh.shape[name]}" for name in AXES)
    kind = mesh.devices.flat[0].device_kind
    return f"{sizes} = {mesh.size} x {kind}, {jax.process_count()} process(es)"
