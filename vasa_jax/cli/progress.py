"""How far a long command is, on stderr."""

from __future__ import annotations

import sys
import time


class Progress:
    """Stages and counts on stderr: one rewritten line on a terminal, few lines elsewhere.

    With ``left`` also how long the stage under way still takes, at the pace that it had.
    """

    def __init__(self, *, left: bool = False) -> None:
        self._left, self._began = left, 0.0
        self._terminal = sys.stderr.isatty()
        self._last = 0.0
        self._stage = ""
        self._open = False

    def say(self, text: str) -> None:
        self.close()
        print(text, file=sys.stderr, flush=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._began = now
        every = 0.1 if self._terminal else 10.0
        if stage == self._stage and done < total and now - self._last < every:
            return
        after = ""
        if self._left and 1 < done < total:
            minutes, seconds = divmod(round((now - self._began) / done * (total - done)), 60)
            after = f"  {minutes}m{seconds:02d}s left"
        if self._terminal:
            if stage != self._stage:
                self.close()
            filled = 30 * done // max(total, 1)
            bar = "#" * filled + "-" * (30 - filled)
            room = f"{after:<14}" if self._left else ""  # over a longer one before
            line = f"\r{stage:<7}[{bar}] {done}/{total}{room}"
            print(line, end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(f"{stage} {done}/{total}{after}", file=sys.stderr, flush=True)
        self._stage, self._last = stage, now

    def close(self) -> None:
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False
