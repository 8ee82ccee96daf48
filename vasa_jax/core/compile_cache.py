"""Compiled programs kept between processes, so that a second start is quick.

The folder is ``$VASA_CACHE/xla`` when that variable is set, else ``vasa-jax/xla`` in the user's
cache folder. ``VASA_CACHE=off`` keeps nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path | None:
    """Where this user's caches live; None when they are switched off. Makes no folder."""
    chosen = os.environ.get("VASA_CACHE", "")
    if chosen.lower() in ("off", "0", "none"):
        return None
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "vasa-jax"


def enable() -> Path | None:
    """Switches JAX's persistent compilation cache on and says where it is.

    None when switched off or when the folder can't be written (a read-only home is no error). Call
    it before the first compilation; a later call changes nothing that is already compiled.
    """
    folder = cache_dir()
    if folder is None:
        return None
    folder = folder / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Half a second is what reading an entry back must beat; smaller programs recompile faster.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
    """Compilations inside neither read nor write JAX's cache, those of other threads included.

    An executable that XLA:CPU read back from a cache cannot be serialised again: the copy lacks
    functions, and says so only when it runs.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    was = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # what it is set to is looked up once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", was)
        compilation_cache.reset_cache()
