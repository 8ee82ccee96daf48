"""Logs that a flood of strangers cannot flood."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

MOST, SPAN_S = 5, 60.0  # records of one kind in a span; the rest is counted


class Sparing(logging.Filter):
    """Lets ``most`` records of each kind pass in ``span_s`` seconds, then says how many did not.

    A kind is a logger with its message before the arguments are put in. The count comes with the
    first record of the kind in a later span.
    """

    def __init__(
        self,
        most: int = MOST,
        span_s: float = SPAN_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self._most, self._span_s, self._clock = most, span_s, clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # begin of the span, records

    def filter(self, record: logging.LogRecord) -> bool:
        now, kind = self._clock(), (record.name, str(record.msg)[:80])
        began, count = self._kinds.get(kind, (now, 0))
        hidden = 0
        if now - began >= self._span_s:
            began, hidden, count = now, max(0, count - self._most), 0
        if len(self._kinds) > 100 and kind not in self._kinds:  # messages that are never the same
            self._kinds.clear()
        self._kinds[kind] = began, count + 1
        if count >= self._most:
            return False
        note = ""
        if hidden:
            note = f"[{hidden} more of these were not shown] "
        elif count == self._most - 1:
            note = f"[more of these are counted for {self._span_s:g} s] "
        if note:
            record.msg, record.args = note + record.getMessage(), ()
        return True
