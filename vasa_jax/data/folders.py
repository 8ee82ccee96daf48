"""Folders that training data is made from and read from: what is in them, and whose it is.

A folder of recordings may hold files side by side or folders of people, to any depth: the first
folder below it names the person, and without one each file is somebody else. Names are compared
without regard to case, hidden files (unfinished ones among them) are left alone.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vasa_jax.core.errors import UserError
from vasa_jax.runtime.places import typed

VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts",
    ".3gp", ".wmv", ".flv", ".ogv",
)  # fmt: skip
SOUND_ENDINGS = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff",
    ".g722", ".gsm",
)  # fmt: skip
PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip


def data_folder(name: str, setting: str) -> Path:
    """The folder that a configuration names, with environment variables and ``~`` filled in.

    Raises UserError when it names a variable that is not set; ``setting`` is where it stands.
    """
    filled = os.path.expandvars(name)
    unset = re.search(r"\$(\w+|\{\w+\})", filled)
    if unset:
        variable = unset[1].strip("{}")
        raise UserError(
            f"{setting} is {name}, but {variable} is not set: put it before the command, as in "
            f"{variable}=FOLDER vasa-jax train ..., or give the folder with --set {setting}=FOLDER"
        )
    return typed(filled)


def finished_files(folder: Path, *, below: bool = False) -> list[Path]:
    """Files of training data (.npz) in a folder, perhaps also ``below`` it, in order.

    Parts of unfinished ones are left out: they have hidden names, or end in ``.tmp.npz`` as earlier
    versions named them.
    """
    return [
        p
        for p in _files(folder, (".npz",))
        if not p.name.endswith(".tmp.npz") and (below or p.parent == folder)
    ]


def media_files(folder: Path, endings: Sequence[str], what: str) -> list[Path]:
    """Files of some kinds in a folder and below it, in order.

    Raises UserError when there is no such folder, or nothing of the kind in it.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    found = _files(folder, endings)
    if not found:
        raise UserError(f"{folder} holds no {what} ({', '.join(endings)})")
    return found


def _files(folder: Path, endings: Sequence[str]) -> list[Path]:
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in endings
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and p.is_file()
    )


def person_of(path: Path, folder: Path) -> str:
    """Who is in a file of ``folder``: the first folder below it; empty for a file right in it."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def beside(source: Path, folder: Path, out: Path | None) -> Path | None:
    """The folder in ``out`` that is to ``out`` what the source's is to ``folder``."""
    return None if out is None else out / source.relative_to(folder).parent


def made_from(source: Path, folder: Path, out: Path) -> Path:
    """The file in ``out`` that is made of ``source``: the same folders, the whole name.

    ``a.mp4`` and ``a.mov`` are two recordings, so ``a.npz`` could be made of either. One of that
    name, made by an earlier version, counts where only one source can be meant.
    """
    place = out / source.relative_to(folder).parent
    earlier = place / f"{source.stem}.npz"
    if earlier.exists() and only_of_its_stem(source):
        return earlier
    return place / f"{source.name}.npz"


def only_of_its_stem(source: Path) -> bool:
    """Whether no other recording or picture beside a file differs from it in the ending alone."""
    endings = {*VIDEO_ENDINGS, *SOUND_ENDINGS, *PICTURE_ENDINGS}
    beside = source.parent.iterdir() if source.parent.is_dir() else ()
    return not any(
        p.stem == source.stem and p.name != source.name and p.suffix.lower() in endings
        for p in beside
    )


class LeftOut:
    """Files that could not be used, told as they come and once more at the end."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, path: Path, reason: object) -> None:
        """Tell of one file."""
        self.reasons[str(path)] = " ".join(str(reason).split())
        print(f"left out {path}: {self.reasons[str(path)]}", flush=True)

    def tell(self, tried: int) -> None:
        """List them all. Raises UserError when nothing of what was tried could be used."""
        if not self.reasons:
            return
        lines = "".join(f"\n  {path}: {reason}" for path, reason in self.reasons.items())
        if len(self.reasons) == tried:
            raise UserError(f"none of {tried} files could be used: {lines}")
        print(f"left out {len(self.reasons)} of {tried} files:{lines}", flush=True)


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """A module's ``main`` whose user errors are one line and exit status 2, no traceback."""

    @functools.wraps(main)
    def told() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    return told
