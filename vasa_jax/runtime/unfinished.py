"""Files and folders that are being written: hidden names beside what they will become.

A writer that is killed leaves its file behind. The name says whose it is, so that the next one who
writes the same removes what dead processes left; a process that ends in a hurry removes its own.

    .talk.4978.9c01f2aa-0.part.mp4        process 4978 of the machine 9c01f2aa is writing talk.mp4
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from pathlib import Path

# Processes of other machines, or of other containers, can't be looked up. What none of them has
# touched for so long is taken for left behind.
ELSEWHERE_S = 24 * 3600.0
_LONGEST = 160  # bytes of a stem; names on disks have at most 255
# Clocks of disks and of this machine differ; to leave something behind harms less than to remove
# what is being written.
_CLOCKS_S = 600.0
_numbers = itertools.count()
_mine: set[Path] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mine.clear)


def name_for(path: str | os.PathLike[str]) -> Path:
    """A new name beside ``path`` for the unfinished file or folder; its suffix stays.

    Removes what dead processes left of ``path``. The folder need not exist. After the writing,
    ``settled`` should be called with the name.
    """
    target = Path(path)
    sweep(target)
    tag = f"{os.getpid()}.{_machine()}-{next(_numbers)}"
    part = target.with_name(f"{_beginning(target)}{tag}.part{target.suffix}")
    _mine.add(part)
    return part


def settled(part: Path) -> None:
    """Forgets an unfinished name: it was renamed, or is removed now."""
    _mine.discard(part)
    _remove(part)


def remove_mine() -> None:
    """Removes all that this process has not finished, for an end in a hurry."""
    for part in tuple(_mine):
        settled(part)


def sweep(path: str | os.PathLike[str]) -> None:
    """Removes what processes that are gone left of ``path``."""
    target = Path(path)
    _sweep(target.parent, _beginning(target), re.escape(target.suffix))


def sweep_folder(folder: str | os.PathLike[str]) -> None:
    """Removes what processes that are gone left of any file in a folder that is ours alone."""
    _sweep(Path(folder), ".", r"(?:\.\w+)?")


def _sweep(folder: Path, beginning: str, suffix: str) -> None:
    pattern = re.compile(
        (r"\..+\." if beginning == "." else re.escape(beginning))
        + r"(?P<pid>[0-9]+)(?:\.(?P<machine>[0-9a-f]{8})-[0-9]+)?\.(?:part|signed)"
        + suffix
    )
    # "[" and "*" in a name are letters.
    for name in glob.iglob(f"{glob.escape(beginning)}*", root_dir=folder):
        found = pattern.fullmatch(name)
        if found and _is_left_behind(folder / name, int(found["pid"]), found["machine"]):
            _remove(folder / name)


def _beginning(target: Path) -> str:
    stem = os.fsencode(target.stem)
    if len(stem) > _LONGEST:
        stem = stem[: _LONGEST - 9] + b"-" + hashlib.sha256(stem).hexdigest()[:8].encode()
    return f".{os.fsdecode(stem)}."


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _is_left_behind(part: Path, pid: int, machine: str | None) -> bool:
    try:
        written = part.lstat().st_ctime  # the other time is the writer's to set
    except OSError:
        return False
    if machine not in (None, _machine()):
        return time.time() - written > ELSEWHERE_S
    return not _is_running(pid, since=written)


def _is_running(pid: int, *, since: float) -> bool:
    """Whether a process of this machine is alive, and was at the time ``since``.

    Numbers of processes are used again: one that began later is another.
    """
    if os.name == "nt":  # there os.kill ends a process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        pass
    try:
        # After the name in brackets: state is field 3, the start (in ticks after boot) field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX":  # dead, but nobody has asked for its status yet
            return False
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):  # no Linux
        return True
    return time.time() - age < since + _CLOCKS_S


@functools.cache
def _machine() -> str:
    """What processes that can see each other share: the host and the numbering of processes."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbering}".encode()).hexdigest()[:8]
