"""Files that several verbs read and write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")


def files_of(path: str, endings: Sequence[str], what: str) -> list[Path]:
    """The files of a folder with one of the endings, or the one file; sorted."""
    from vasa_jax.core.errors import UserError
    from vasa_jax.runtime.places import typed

    root = typed(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"no such folder or {what} file: {root}")
    found = sorted(p for p in root.iterdir() if p.suffix.lower() in endings)
    if not found:
        raise UserError(f"{root} holds no {what} file ({', '.join(endings)})")
    return found


def write_json(path: str | Path, value: Any) -> None:
    """Numbers that JSON has no word for become null; whole or not at all."""
    from vasa_jax.evaluate import suite
    from vasa_jax.io.atomic import replacing

    with replacing(path) as part:
        part.write_text(json.dumps(suite.plain(value), indent=1, allow_nan=False) + "\n")
