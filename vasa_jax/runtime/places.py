"""Where a user's files are: names as they were typed, and folders for what is kept between runs.

Neither asks that there be a home: containers and clusters run programs as users that no list of
users knows, with ``HOME`` unset, empty or ``/``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

NAME = "vasa-jax"


def typed(path: str | os.PathLike[str]) -> Path:
    """The file that a user means by ``path``; never fails.

    ``~`` and ``~user`` at the beginning stand for a home folder. Where there is a file of that very
    name, or no such home, they are letters like others: ``~draft.jpg`` is a name.
    """
    literal = Path(path)
    if not os.fspath(literal).startswith("~") or os.path.lexists(literal):
        return literal
    try:
        expanded = literal.expanduser()
    except RuntimeError:
        return literal
    # Neither may exist yet: a file to be written. A folder "~" beside us then decides.
    beside_us = os.path.lexists(literal.parts[0]) and not os.path.lexists(expanded)
    return literal if beside_us else expanded


def cache_folder() -> Path | None:
    """The user's folder for what can be made again; None without any. Makes only private ones."""
    if sys.platform == "win32":
        return _users("LOCALAPPDATA", "AppData/Local")
    if sys.platform == "darwin":
        return _users(None, "Library/Caches")
    return _users("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path | None:
    """The user's folder for what should last; None without any. Makes only private ones."""
    if sys.platform == "win32":
        return _users("APPDATA", "AppData/Roaming")
    if sys.platform == "darwin":
        return _users(None, "Library/Application Support")
    return _users("XDG_DATA_HOME", ".local/share")


def temporary_folder() -> Path | None:
    """A folder of this user alone where temporary files go, the same for all processes.

    Everybody may write where temporary files go, so one that another user made, or may change, is
    not taken: None then, and where no temporary file can be written at all.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    try:
        folder = Path(tempfile.gettempdir()) / (NAME if user is None else f"{NAME}-{user}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    if user is not None and (found.st_uid != user or found.st_mode & 0o022):
        return None
    return folder


def shelter(variable: str, name: str) -> None:
    """Tells a library where to keep its files when this user has no home, by ``$variable``."""
    if variable not in os.environ and _home() is None:
        folder = temporary_folder()
        if folder is not None:
            os.environ[variable] = str(folder / name)


def _users(variable: str | None, in_home: str) -> Path | None:
    """``$variable``, or a place in the home, or without either one for temporary files."""
    chosen = Path(os.environ.get(variable, "") if variable else "")
    if chosen.is_absolute():  # the XDG specification has others ignored
        return chosen / NAME
    home = _home()
    return temporary_folder() if home is None else home / in_home / NAME


def _home() -> Path | None:
    """The user's home; None where it is unknown, or is the root of a file system not theirs."""
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        return None
    if not home.is_absolute():
        return None
    # HOME is "" or "/" for a user that a container does not know; root's own may be "/".
    if home.parent == home and not os.access(home, os.W_OK):
        return None
    return home
