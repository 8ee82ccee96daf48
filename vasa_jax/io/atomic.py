"""Files that appear whole or not at all, and operating-system errors in the user's words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from vasa_jax.core.errors import UserError
from vasa_jax.runtime import unfinished
from vasa_jax.runtime.places import typed


def partial_path(path: str | os.PathLike[str]) -> Path:
    """A hidden name beside ``path`` for the unfinished file (``runtime/unfinished.py``).

    Makes the folder. The suffix stays, since writers choose the format by it. Raises UserError when
    the folder can't be made or is no folder, or when ``path`` is itself a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(target, error) from error
    return unfinished.name_for(target)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path; on success it becomes ``path``, on any failure it is removed.

    An OSError inside (disk full, no permission) becomes a UserError that names ``path``.
    """
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        # Gone already after a success; a half-written file must not stay after a failure.
        unfinished.settled(partial)


def writing_failed(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The one line for a file that could not be written."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere",
        errno.EDQUOT: "your disk quota is used up; free some space or write elsewhere",
        errno.EFBIG: "the file may not grow that large here; write elsewhere",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "that disk is read-only; write elsewhere",
        errno.ENOTDIR: "a part of that path is a file, not a folder",
        errno.EEXIST: "a part of that path is a file, not a folder",
        errno.ENAMETOOLONG: "that name is too long",
    }
    reason = reasons.get(error.errno or 0, str(error.strerror or error))
    return UserError(f"can't write {os.fspath(path)}: {reason}")


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """``path`` if it is a readable, non-empty file; otherwise UserError ("no such WHAT: ...")."""
    file = typed(path)
    try:
        if file.is_dir():
            raise UserError(f"{file} is a folder; give one {what} file")
        if not file.exists():
            raise UserError(f"no such {what} file: {file}")
        with open(file, "rb") as opened:
            if not opened.read(1):
                raise UserError(f"{file} is empty; give a {what} file with content")
    except OSError as error:
        raise UserError(f"can't read {file}: {error.strerror or error}") from error
    return file


def media_address(path: str | os.PathLike[str]) -> str:
    """A file as FFmpeg is to be told of it, which takes ``12:30.mp4`` for a protocol's address."""
    return f"file:{os.fspath(path)}"
