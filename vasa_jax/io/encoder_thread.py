"""Encoding beside rendering: a writer of video that is fed from a queue."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np


class EncoderThread:
    """Writes frames in a thread of its own, so that encoding and rendering overlap.

    The queue is short: memory stays flat, and the renderer waits for a slow disk.
    """

    def __init__(self, writer: Any):
        self._writer = writer
        self._queue: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=8)
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="encoder", daemon=True)
        self.seconds = 0.0

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._error is not None or self._abandoned:
                continue  # keep emptying the queue, so that nobody waits for room in it
            begin = time.perf_counter()
            try:
                self._writer.write(frame)
            except BaseException as error:  # handed to the main thread, which knows what to do
                self._error = error
            self.seconds += time.perf_counter() - begin

    def put(self, frame: np.ndarray) -> None:
        """Queues a frame; raises what went wrong with an earlier one."""
        if self._error is not None:
            raise self._error
        self._queue.put(frame)

    def finish(self) -> None:
        """Waits until all is written."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> EncoderThread:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        # After an error the writer must not be closed under the thread's feet.
        self._abandoned = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
