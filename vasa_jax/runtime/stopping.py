"""Programs that end when they are asked to: a line at once, the end within two seconds.

Python hears a signal only between two of its own instructions, and XLA compiles for a quarter of a
minute without any. So a thread listens, too: it says at once that the signal was heard; when
unwinding has not ended the process ``GRACE_S`` later, or on a second signal, it removes what is
unfinished (``runtime/unfinished.py``) and ends the process. Nothing is lost by that: files get
their names only when they are whole.

``listen`` belongs at the very beginning, before anything heavy is imported. Whoever sets a handler
of its own (the training loop, to save first; asyncio) is not interfered with until it has put the
one before back.
"""

from __future__ import annotations

# Few imports and light ones: until ``listen`` has run, Ctrl-C is answered by a traceback.
import os
import signal
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

GRACE_S = 1.5
# A terminal that is closed, or a connection that breaks, sends SIGHUP.
_NAMES = {"SIGINT": "interrupted", "SIGTERM": "asked to end (SIGTERM)", "SIGHUP": "hung up"}

_heard: signal.Signals | None = None
_listening = False
_telling = threading.RLock()  # a handler may run while its own thread is telling
_held = threading.local()


def listen() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process; only in the main thread.

    They raise KeyboardInterrupt or SystemExit there, as soon as Python gets to it. A signal that
    was ignored when the process began (``nohup``, a job in the background) stays so.
    """
    global _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        return
    _listening = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_child)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def is_listening() -> bool:
    """Whether ``listen`` was called, so that nobody need care for signals."""
    return _listening


def heard() -> int | None:
    """The exit status that the first signal asks for (130 for SIGINT); None: there was none."""
    return None if _heard is None else 128 + _heard


def end(status: int) -> NoReturn:
    """Ends this process now, with what was said and without anything unfinished.

    Python's own way out waits for threads that may be compiling, and takes XLA from under them.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # nobody reads, or the other thread is writing
                pass
        # What was never imported has nothing to be ended.
        if unfinished := sys.modules.get("vasa_jax.runtime.unfinished"):
            unfinished.remove_mine()
        if multiprocessing := sys.modules.get("multiprocessing"):
            for child in multiprocessing.active_children():
                child.kill()
    finally:
        os._exit(status)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """In the main thread."""
    _note(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _watch(reading: int) -> None:
    """Reads the numbers of signals, which come here even while the main thread is in XLA."""
    told = False
    while True:
        for number in os.read(reading, 16):
            if signal.getsignal(number) is not _unwind:
                continue  # somebody else's, or another signal that has a handler
            first = _note(number)
            if told:
                end(128 + first)
            told = True
            threading.Thread(target=_hurry, args=(first,), name="grace", daemon=True).start()


def _note(number: int) -> signal.Signals:
    """Keeps and tells the first signal, and gives it. Main thread and ``_watch`` both come here."""
    global _heard
    with _telling:
        if _heard is None:
            _heard = signal.Signals(number)
            # On a terminal a bar of progress or "^C" may stand in the line.
            line = f"{chr(10) if os.isatty(2) else ''}vasa-jax: {_NAMES[_heard.name]}; ending\n"
            try:
                os.write(2, line.encode())
            except OSError:  # nobody reads it
                pass
        return _heard


def _hurry(number: signal.Signals) -> None:
    time.sleep(GRACE_S)
    end(128 + number)


def _hold() -> None:
    """Before a fork. A child shares the pipe until ``_child`` has run; it must hear nothing."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _numbers())


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _child() -> None:
    """A forked process is not this program: it ends by signals as any other does."""
    signal.set_wakeup_fd(-1)
    for number in _numbers():
        if signal.getsignal(number) is _unwind:
            interrupts = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)
    _release()
