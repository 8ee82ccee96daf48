"""Compiled programs kept between processes, so that a second start is quick.

The folder is ``$VASA_CACHE/xla`` when that variable is set, else ``vasa-jax/xla`` in the user's
cache folder (``runtime/places.py``). ``VASA_CACHE=off`` keeps nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from vasa_jax.runtime import places
from vasa_jax.runtime.places import typed

ROOM_BYTES = 64 << 20  # what a disk must have left for entries to be added


def cache_dir() -> Path | None:
    """Where this user's caches live; None when they are switched off or there is no place."""
    chosen = os.environ.get("VASA_CACHE", "")
    if chosen.lower() in ("off", "0", "none"):
        return None
    return typed(chosen) if chosen else places.cache_folder()


def enable() -> Path | None:
    """Switches JAX's persistent compilation cache on and says where it is.

    None when switched off or when there is no such folder and none can be made (a read-only home is
    no error). What is in a folder that can't be written is still used. Call it before the first
    compilation; a later call changes nothing that is already compiled.
    """
    folder = usable("xla")
    if folder is None:
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Half a second is what reading an entry back must beat; smaller programs recompile faster.
    # JAX warns of every entry that it can't write, so then it shall not try.
    shortest = 0.5 if is_writable(folder) else math.inf
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def usable(part: str, *, mode: int = 0o777) -> Path | None:
    """The folder ``part`` of the cache, made if need be; None where it can't even be read.

    Perhaps only for reading: ``is_writable`` tells.
    """
    cache = cache_dir()
    if cache is None:
        return None
    folder = cache / part
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError:
        return None
    return folder if os.access(folder, os.R_OK | os.X_OK) else None


def is_writable(folder: Path) -> bool:
    """Whether entries can be added to a folder: permission, and a disk that is not full.

    JAX does not write its entries whole or not at all, and never replaces one that was cut off.
    """
    try:
        return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM_BYTES
    except OSError:
        return False


_bypassing = 0  # threads inside of ``bypassed``
_switch = threading.Lock()


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
    """Compilations inside neither read nor write JAX's cache, those of other threads included.

    An executable that XLA:CPU read back from a cache cannot be serialised again: the copy lacks
    functions, and says so only when it runs. Several threads may be inside: the last one to leave
    puts back what the first one found.
    """
    global _bypassing
    with _switch:
        if _bypassing == 0:
            _use_cache(False)
        _bypassing += 1
    try:
        yield
    finally:
        with _switch:
            _bypassing -= 1
            if _bypassing == 0:
                _use_cache(True)


_before = True  # what ``bypassed`` found


def _use_cache(wanted: bool) -> None:
    """Switches JAX's cache off, or back to what it was."""
    global _before
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if not wanted:
        _before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", wanted and _before)
    compilation_cache.reset_cache()  # what it is set to is looked up once
