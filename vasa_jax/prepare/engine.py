"""Who does the work of a stage: this process, processes of this machine, or a cluster.

An engine hands rows to a pure function and gives back what it made of them, in the order in which
they are ready. Only the process that asked writes journals, so a worker may die at any moment.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, cast

from vasa_jax.runtime.parent import end_with_parent

Row = dict[str, Any]
Work = Callable[[Row], Row]
RETRIES = 1  # of a row whose worker died
DIED = f"its worker died {RETRIES + 1} times"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Engine(Protocol):
    """What prepares rows."""

    def map(self, function: Work, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        """Each row with its outcome, as it is ready; the function must be one that can be
        pickled. A row that kills its workers has an outcome with "error"."""

    def close(self) -> None:
        """End what was started."""


class HereEngine:
    """This process, one row after the other."""

    def map(self, function: Work, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        for row in rows:
            yield row, function(row)

    def close(self) -> None:
        pass


class LocalEngine:
    """Processes of this machine, one core each, kept from stage to stage."""

    def __init__(self, workers: int):
        self._workers = [_Worker() for _ in range(workers)]

    def map(self, function: Work, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        waiting: deque[tuple[Row, int]] = deque()
        source = iter(rows)
        busy: dict[Connection, tuple[_Worker, Row, int]] = {}
        idle = list(self._workers)

        def give() -> None:
            while idle:
                if waiting:
                    row, tries = waiting.popleft()
                elif (found := next(source, None)) is not None:
                    row, tries = found, 0
                else:
                    return
                worker = idle.pop()
                worker.send(function, row)
                busy[worker.pipe] = worker, row, tries

        give()
        while busy:
            for pipe in wait(list(busy)):
                worker, row, tries = busy.pop(cast(Connection, pipe))
                outcome = worker.receive()
                idle.append(worker)
                if outcome is None:
                    worker.start()
                    if tries < RETRIES:
                        waiting.append((row, tries + 1))
                    else:
                        yield row, {"error": DIED}
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    yield row, outcome
            give()

    def close(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        self.pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ |= dict.fromkeys(THREADS, "1")  # born with it
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        there.close()

    def send(self, function: Work, row: Row) -> None:
        try:
            self.pipe.send((function, row))
        except OSError:  # it is dead; ``receive`` will tell
            pass

    def receive(self) -> Any:
        """An outcome or an exception; None of a process that died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        self._process.kill()  # what it was at appears whole or not at all
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    """In a worker: rows until the parent is gone."""
    end_with_parent()
    _one_core()
    while True:
        try:
            function, row = pipe.recv()
        except EOFError:
            return
        try:
            outcome: Any = function(row)
        except Exception as error:  # handed to the parent, whose it is
            outcome = error
        try:
            pipe.send(outcome)
        except (TypeError, AttributeError):  # an exception that can't be pickled
            pipe.send(RuntimeError(f"{type(outcome).__name__}: {outcome}"))


def _one_core() -> None:
    from vasa_jax.runtime import compile_cache  # with JAX, which the parent may not need

    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.nice(5)
    compile_cache.enable()
