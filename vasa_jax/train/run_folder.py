"""The folder of a run: held by one trainer at a time, written so that nothing is half there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vasa_jax.core.errors import UserError


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Two runs in one folder would ruin each other's checkpoints; the second is refused."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, no protection
        yield
        return
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is training in {workdir}; stop it first") from None
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
    """Write a file, or replace it, in one go."""
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


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
