"""Signals during a run: heard at once, obeyed where nothing is lost.

    the first       a line at once; then the step under way ends, a checkpoint is saved, and the run
                    returns. Where there is nothing to save it ends right away.
    SIGINT again    ends at once, without saving. Within half a second it counts as the first: a
                    terminal and a wrapper both pass one press on.

SIGTERM may come as often as it likes (schedulers repeat it). SIGHUP, a terminal that is gone, is
one more of the first kind, unless it was ignored before (nohup).

Python calls a handler only between two of its own instructions, and XLA compiles for minutes in
one. The line therefore comes from a thread that reads what Python's wakeup descriptor gets at once.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from vasa_jax.runtime import stopping

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE_S = 1.0  # until a run with nothing to save is ended from outside
REPEAT_S = 0.5  # within which another signal is an echo of the first


class Stopped(BaseException):
    """A signal came where the run may be left. No Exception: nothing may take it for a failure."""


class Signals:
    """Listens while a run goes on; ``with`` it, from the main thread (elsewhere it hears nothing).

    ``say`` shows a line. ``exits``: the process belongs to the run, and may be ended by it, the
    terminal left to ``close`` before; else a second SIGINT is a KeyboardInterrupt. ``several``
    processes leave together, so that no signal makes this one leave alone.
    """

    def __init__(self, *, exits: bool = False, several: bool = False) -> None:
        self.stop = ""  # name of the signal that asked
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self.close: Callable[[], None] = lambda: None
        self._exits, self._several = exits, several
        self._step, self._kept = 0, 0
        self._doing, self._leavable = "the start", False
        self._first = 0.0
        self._before: dict[int, Any] = {}
        self._ears: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    def at(self, step: int, kept: int | None) -> None:
        """The run has done ``step`` steps, of which ``kept`` are in a checkpoint."""
        self._step, self._kept = step, kept or 0
        self._doing = "the step under way"

    @contextlib.contextmanager
    def leaving(self, doing: str) -> Iterator[None]:
        """Within, a signal raises ``Stopped``: what is done here may be left in the middle."""
        before = self._doing, self._leavable
        self._doing, self._leavable = doing, not self._several
        try:
            if self.stop and self._leavable:
                raise Stopped
            yield
            self._doing = before[0]
        finally:
            self._leavable = before[1]

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, writer = self._ears = socket.socketpair()
        writer.setblocking(False)
        self._thread = threading.Thread(
            target=self._listen, args=(reader,), name="signals", daemon=True
        )
        self._thread.start()
        # Ears before hands: a signal from here on is told.
        self._wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for name in NAMES:
            number = getattr(signal, name, None)  # SIGHUP is not known to every system
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            self._before[number] = signal.signal(number, self._obey)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._ears is None or self._thread is None:
            return
        self._leavable = False
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        reader, writer = self._ears
        writer.close()  # the thread reads what is left, then ends
        self._thread.join()
        reader.close()

    def _obey(self, number: int, frame: object) -> None:
        """In the main thread, between two instructions of Python."""
        name, again = signal.Signals(number).name, bool(self.stop)
        late = time.monotonic() - self._first > REPEAT_S
        if not again:
            self.stop, self._first = name, time.monotonic()
        elif name == "SIGINT" and late and not self._exits:
            raise KeyboardInterrupt
        if self._leavable and not again:
            raise Stopped

    def _listen(self, ear: socket.socket) -> None:
        """In a thread of its own, at once."""
        first = 0.0
        deadline: float | None = None
        asked = 0
        while True:
            patience = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([ear], [], [], patience)[0]:
                if self._nothing():  # and the main thread is deep in a call
                    self._end(128 + asked)
                deadline = None
                continue
            data = ear.recv(64)
            if not data:
                return
            for number in data:
                if number not in self._before:
                    continue
                name, now = signal.Signals(number).name, time.monotonic()
                if not first:
                    first, asked = now, number
                    self.say(f"{name}: {self._intention()}")
                    if self._nothing() and self._exits:
                        deadline = now + PATIENCE_S
                elif name == "SIGINT" and now - first > REPEAT_S:
                    self.say(f"{name} again: ending without saving; {self._last()}")
                    if self._exits:
                        self._end(128 + number)

    def _nothing(self) -> bool:
        """Whether ending right now would lose nothing, and leave nobody alone."""
        return self._step == self._kept and not self._several

    def _intention(self) -> str:
        if self._nothing():
            return f"ending; nothing is to be saved, {self._last()}"
        return (
            f"ending after {self._doing} and saving what is trained; "
            f"Ctrl-C again ends at once without saving ({self._last()})"
        )

    def _last(self) -> str:
        if self._kept:
            return f"the last checkpoint is step {self._kept}"
        return "there is no checkpoint yet" if self._step else "no step is done yet"

    def _end(self, status: int) -> NoReturn:
        """Leave now, whatever the main thread is in; files are whole at any time."""
        self.close()
        stopping.end(status)
