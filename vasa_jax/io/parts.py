"""Finished parts of an unfinished run: what was measured once need not be measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import replacing


class Parts:
    """JSON values by name in a folder ``RESULT.partial`` beside the result; none without a result.

    The folder belongs to one set of settings; ``finished`` removes it when the result is written.
    """

    def __init__(self, result: Path | None, settings: dict[str, Any]):
        """Raises UserError when the folder holds parts of a run with other settings."""
        self.folder = None if result is None else result.with_name(result.name + ".partial")
        if self.folder is None:
            return
        note = self.folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if note.exists() and json.loads(note.read_text(encoding="utf-8")) != wanted:
            raise UserError(f"{self.folder} holds an unfinished run with other settings; finish it "
                            "with those, or delete the folder")  # fmt: skip
        with replacing(note) as part:
            part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """The value ``name``: read if it is there, else made and written."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        value = make()
        with replacing(path) as part:
            part.write_text(json.dumps(value), encoding="utf-8")
        return value

    def has(self, name: str) -> bool:
        """Whether a file of that name, with its suffix, was kept."""
        return self.folder is not None and (self.folder / name).exists()

    def finished(self) -> None:
        """Removes the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
