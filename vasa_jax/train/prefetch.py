"""Batches made ahead, in a thread or in worker processes, and put where the step wants them.

A batch is a pure function of its step, so nothing about a loader has to be saved: to resume is to
ask for the batches from another step on, by however many workers. One thread is enough while a
step takes longer than its batch; where it does not (the log's ``data_wait`` tells), grain's worker
processes share the steps out among them. Each has its own copy of the task; of its data an index,
which reads what a batch needs from disk.
"""

from __future__ import annotations

import functools
import inspect
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from vasa_jax.core import mesh as meshes
from vasa_jax.runtime.parent import end_with_parent

Batch = Any


def placed_batches(
    task: Any,
    mesh: Mesh,
    start_step: int,
    *,
    parts: int = 1,
    workers: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Batch]:
    """The batches of ``task`` from ``start_step`` on, over the devices of ``mesh``.

    With several processes each makes only its own rows, where the task can (``batches`` takes
    ``rows``); else it makes all and keeps its own. ``workers`` > 0 makes them in so many processes;
    without grain ``say`` gets a line, and this thread makes them. UserError when rows do not divide
    over devices and ``parts`` microbatches.
    """
    shared = getattr(task, "shared", ())
    several = jax.process_count() > 1
    rows: int | None = getattr(task, "batch_size", None)
    if rows is not None:
        meshes.check_batch(mesh, rows, parts)
    own: slice | None = None
    if several and rows is not None and "rows" in inspect.signature(task.batches).parameters:
        own = meshes.process_rows(mesh, rows)
    make = task.batches if own is None else functools.partial(task.batches, rows=own)
    try:
        source = worker_batches(make, start_step, workers) if workers else make(start_step)
    except ImportError:
        say(f"loop.workers={workers} needs grain (pip install grain); batches come from a thread")
        source = make(start_step)
    for batch in source:
        total = rows if own is not None else meshes.batch_rows(batch, shared)
        assert total is not None  # own rows are only asked for where their number is known
        meshes.check_batch(mesh, total, parts)
        if several and own is None:
            batch = meshes.cut_rows(batch, meshes.process_rows(mesh, total), shared)
        yield meshes.place_batch(mesh, batch, shared, total)


class _Steps:
    """The batches after ``start`` by number, as grain wants them."""

    def __init__(self, make: Callable[[int], Iterator[Batch]], start: int):
        self._make, self._start = make, start

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: Any) -> Batch:
        return next(iter(self._make(self._start + int(index))))


def worker_batches(
    make: Callable[[int], Iterator[Batch]], start_step: int, workers: int
) -> Iterator[Batch]:
    """The items of ``make(start_step)``, made by grain in ``workers`` processes, in order.

    ``make`` is copied to them with all that it holds; they see no accelerator. Raises ImportError
    without grain.
    """
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain asks for its flags; this program has none of absl's
        flags.FLAGS.mark_as_parsed()
    steps = grain.MapDataset.source(_Steps(make, start_step))
    data = steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return iter(data.mp_prefetch(options, worker_init_fn=_begin_worker))


def _processor_only() -> None:
    """In a worker: JAX must not take the accelerator that the trainer has."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def _begin_worker(worker: int, workers: int) -> None:
    """In a worker: it lives as long as the trainer, and makes batches until that wants no more."""
    del worker, workers
    end_with_parent()
    _processor_only()


class Prefetch:
    """An iterator that makes the next items in one background thread.

    An exception of the source comes out of ``next``. Leaving the ``with`` ends the thread.
    """

    def __init__(self, source: Iterator[Batch], *, size: int = 2):
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=max(size, 1))
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._fill, args=(source,), daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(timeout=2.0)

    def close(self) -> None:
        """No more items are wanted; the thread ends with the one that it is making."""
        self._closed.set()

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Batch:
        if self._ended:
            raise StopIteration
        what, item = self._queue.get()
        if what == "item":
            return item
        self._ended = True
        if what == "error":
            raise item
        raise StopIteration

    def _fill(self, source: Iterator[Batch]) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Worker processes are born with it, and Ctrl-C must not find them before they can say
            # that it is for the trainer.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for item in source:
                if not self._put("item", item):
                    return
        except BaseException as error:  # noqa: B036  # handed to the thread that trains
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, what: str, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put((what, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
