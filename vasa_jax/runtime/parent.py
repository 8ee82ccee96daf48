"""Worker processes that live as long as whoever started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """In a worker: from now on it ends when its parent is gone, also one that was killed.

    Ctrl-C is for the parent, which ends its workers or lets them end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait, name="parent", daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a pipe that the system closes with the parent
        os._exit(1)
