"""A file that grows beside a run: the log, TensorBoard's events. It never holds the run up.

A full disk is no reason to end days of training, and a run's log is no reason to be lost when the
space is back: what cannot be written waits in memory, in order, for the next time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from vasa_jax.checkpoint.train_state import disk_trouble


class SideFile:
    """Bytes appended to ``path`` as soon as the disk takes them. Nothing here raises OSError.

    ``trouble`` says in words why some are still waiting; it is empty when all are there.
    """

    def __init__(self, path: Path):
        self.path = path
        self.trouble = ""
        self._waiting = bytearray()
        self._file: IO[bytes] | None = None

    def append(self, data: bytes) -> None:
        """Add ``data``, after what is still waiting."""
        self._waiting += data
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Without a buffer: how much of it was written is known, to the byte.
                self._file = self.path.open("ab", buffering=0)
            while self._waiting:
                del self._waiting[: self._file.write(bytes(self._waiting)) or 0]
            self.trouble = ""
        except OSError as error:
            self.trouble = f"{self.path.name} cannot be written: {disk_trouble(error)}"

    def end_broken_line(self) -> None:
        """After a crash in the middle of a line, start the next one on a line of its own."""
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                broken = file.read(1) != b"\n"
        except OSError:  # there is no file, or it is empty
            broken = False
        if broken:
            self.append(b"\n")

    def close(self) -> int:
        """Close the file; returns how many bytes it lacks."""
        self.append(b"")
        if self._file is not None:
            self._file.close()
            self._file = None
        return len(self._waiting)
