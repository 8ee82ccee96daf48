"""What was done: one line of JSON per row, appended, one file per stage and process.

A line is ``{"key": ..., "result": {...}}``, or in place of a result ``"refused"``, which is final,
or ``"error"``, which the next run tries again. A torn last line, of a process that was killed, is
as if it had not been written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vasa_jax.io.atomic import writing_failed

Row = dict[str, Any]


class Journal:
    """The rows of one stage: those of all processes are read, this one's are written.

    Args:
        folder: where journals lie.
        stage: its name.
        writer: of this process, as "0-of-4"; empty where it is alone.
    """

    def __init__(self, folder: Path, stage: str, writer: str = ""):
        self._path = folder / f"{stage}{'.' + writer if writer else ''}.jsonl"
        self.rows: dict[str, Row] = {}
        self._of: dict[str, dict[str, None]] = {}  # keys by source, in order
        for path in sorted(folder.glob(f"{stage}.jsonl")) + sorted(folder.glob(f"{stage}.*.jsonl")):
            for row in read(path):
                self._take(row)

    def _take(self, row: Row) -> None:
        self.rows[row["key"]] = row
        self._of.setdefault(row["key"].split("-")[0], {})[row["key"]] = None

    def of(self, source: str) -> dict[str, Row]:
        """The rows of what was cut from a source (keys ``SOURCE-...``), in the order of keys."""
        return {k: self.rows[k] for k in sorted(self._of.get(source, ())) if k != source}

    def missing(self, keys: list[str]) -> list[str]:
        """Keys that are neither done nor refused."""
        return [k for k in keys if k not in self.rows or "error" in self.rows[k]]

    def results(self) -> dict[str, Row]:
        """Results by key."""
        return {k: row["result"] for k, row in self.rows.items() if "result" in row}

    def add(self, key: str, outcome: Row) -> None:
        """Keep a row for good. Raises UserError when the disk does not take it."""
        row = {"key": key, **outcome}
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="surrogateescape")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                whole = _whole_lines(file)
                if file.seek(0, os.SEEK_END) != whole:
                    file.truncate(whole)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise writing_failed(self._path, error) from error
        self._take(row)


def read(path: Path) -> Iterator[Row]:
    """The whole lines of a journal."""
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        yield json.loads(line.decode(errors="surrogateescape"))


def _whole_lines(file: Any) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    back = min(end, 1 << 20)
    file.seek(end - back)
    tail = file.read(back)
    return end - back + tail.rfind(b"\n") + 1
