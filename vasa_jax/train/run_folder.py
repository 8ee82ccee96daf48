"""The folder of a run: held by one trainer at a time, written so that nothing is half there."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import replacing, writing_failed


def make_folder(workdir: Path) -> None:
    """Make the folder of a run, and see that it can be written. UserError says why it cannot be."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except (FileExistsError, NotADirectoryError):
        blocking = next(p for p in (workdir, *workdir.parents) if p.exists())
        raise UserError(
            f"--workdir {workdir} is to be a folder, but {blocking} is a file; give another name"
        ) from None
    except OSError as error:
        raise writing_failed(workdir, error) from None


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Two runs in one folder would ruin each other's checkpoints; the second is refused.

    The first clears away what a killed one has left half-written.
    """
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, no protection
        yield
        return
    with (workdir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is training in {workdir}; stop it first") from None
        for folder in (workdir, *workdir.glob("pictures/*/")):
            for left in (*folder.glob("*.part"), *folder.glob(".*.part.*")):
                left.unlink(missing_ok=True)
        yield  # the lock ends with the file, also when the process is killed


def machine() -> dict[str, str]:
    """What this runs on, for the log and for checkpoints."""
    import vasa_jax

    return {
        "vasa_jax": getattr(vasa_jax, "__version__", "unknown"),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file, empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_text(path: Path, text: str) -> None:
    """Write a file, or replace it, in one go; one that says the same is left alone.

    UserError where there is no room.
    """
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Leaves of two JSON values that differ, as "a.b: old -> new"."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for name in sorted({*before, *now}):
            inner = f"{path}.{name}" if path else name
            lines += changes(before.get(name), now.get(name), inner)
        return lines
    if isinstance(now, tuple):
        now = list(now)
    return [] if before == now else [f"{path}: {before} -> {now}"]
