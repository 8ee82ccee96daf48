"""Batches made ahead, in a thread, and put where the step wants them."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from vasa_jax.core import mesh as meshes

Batch = Any


def placed_batches(task: Any, mesh: Mesh, start_step: int, *, parts: int = 1) -> Iterator[Batch]:
    """The batches of ``task`` from ``start_step`` on, over the devices of ``mesh``.

    With several processes each makes only its own rows, where the task can (``batches`` takes
    ``rows``); else it makes all and keeps its own. UserError when rows do not divide over devices
    and ``parts`` microbatches.
    """
    shared = getattr(task, "shared", ())
    several = jax.process_count() > 1
    rows: int | None = getattr(task, "batch_size", None)
    if rows is not None:
        meshes.check_batch(mesh, rows, parts)
    own: slice | None = None
    if several and rows is not None and "rows" in inspect.signature(task.batches).parameters:
        own = meshes.process_rows(mesh, rows)
    for batch in task.batches(start_step) if own is None else task.batches(start_step, rows=own):
        total = rows if own is not None else meshes.batch_rows(batch, shared)
        assert total is not None  # own rows are only asked for where their number is known
        meshes.check_batch(mesh, total, parts)
        if several and own is None:
            batch = meshes.cut_rows(batch, meshes.process_rows(mesh, total), shared)
        yield meshes.place_batch(mesh, batch, shared, total)


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
        self._closed.set()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(timeout=10.0)

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
