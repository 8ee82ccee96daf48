"""Compiled programs kept whole between processes: a second start neither traces nor compiles.

JAX's persistent cache (``runtime/compile_cache.py``) saves the compilation, but a process must
still trace and lower a function to learn its key, which takes longer than all else that a warm
start does. A ``Program`` is found by what is known before tracing: the source of the packages that
inference runs, versions, the device, and the shapes of the arguments. Files lie in
``$VASA_CACHE/programs`` (see there); with ``VASA_CACHE=off``, or where a backend can't serialise, a
``Program`` is ``jax.jit``. Where files can't be written, those that are there are still used.

A command that calls ``remember`` when it is done and ``prefetch`` when it begins has its programs
read by another thread while it is still importing.

Loading a program runs machine code, so files of other users are not read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import platform
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vasa_jax.runtime import compile_cache, unfinished

SOURCES = (
    "core", "runtime", "nn", "diffusion", "audio", "face", "motion", "generate", "provenance",
)  # fmt: skip
LIMIT_BYTES = 256 << 20  # of the folder; the programs that were not used for longest go first
_SUFFIX = ".program"
_DIGEST_BYTES = 32
# Settings that change what is traced or compiled for the same source.
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
             "jax_threefry_partitionable", "jax_debug_nans", "jax_disable_jit",
             "jax_numpy_dtype_promotion")  # fmt: skip


class Program:
    """``jax.jit(function)`` whose executables are kept; called like it.

    Args:
        static: names of arguments that are values of the trace; hashable, with a ``repr`` that
            tells all of them (frozen dataclasses).
        donate: names of arguments whose buffers the call may take over.
        closed_over: likewise values that the function uses without being given them (those of a
            bound method's object); arrays must be arguments.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        static: Iterable[str] = (),
        donate: Iterable[str] = (),
        closed_over: Hashable = (),
    ):
        self._static = frozenset(static)
        self._jitted = jax.jit(
            function, static_argnames=tuple(self._static), donate_argnames=tuple(donate)
        )
        self._signature = inspect.signature(function)
        self._closed_over = closed_over
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._ready: dict[Hashable, Callable[..., Any]] = {}
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        folder = _folder(compile_cache.cache_dir())
        if folder is None:
            return self._jitted(*args, **options)
        given = self._signature.bind(*args, **options).arguments
        fixed = {name: given[name] for name in given if name in self._static}
        moving = {name: given[name] for name in given if name not in self._static}
        leaves, tree = jax.tree.flatten(moving)
        if any([isinstance(leaf, jax.core.Tracer) for leaf in leaves]):
            return self._jitted(*args, **options)  # inside of another trace
        shapes = tuple([_shape(leaf) for leaf in leaves])
        key = (tuple(fixed.items()), tree, shapes)
        ready = self._ready.get(key)
        if ready is None:
            if any(map(_is_elsewhere, leaves)):
                return self._jitted(*args, **options)
            with self._lock:
                ready = self._ready.get(key)
                if ready is None:
                    ready = self._prepare(folder, fixed, moving, (tree, shapes))
                    self._ready[key] = ready
        try:
            return ready(**moving)
        except ValueError:  # raised before anything runs or is donated
            # To ask where each argument is would cost as much as the rest of a call.
            if not any(map(_is_elsewhere, leaves)):
                raise
        return self._jitted(*args, **options)

    @property
    def count(self) -> int:
        """Forms (shapes, static values) that this process has compiled or loaded."""
        return len(self._ready) or self._jitted._cache_size()  # type: ignore[attr-defined]

    def clear(self) -> None:
        """Forgets all forms; their memory is free once nobody else holds them."""
        with self._lock:
            self._ready.clear()
            self._jitted.clear_cache()  # type: ignore[attr-defined]

    def _prepare(
        self, folder: Path, fixed: dict, moving: dict, form: Hashable
    ) -> Callable[..., Any]:
        """The executable for arguments of one form: from its file, else compiled and written."""
        words = (self._name, repr(self._closed_over), repr(sorted(fixed.items())), str(form))
        name = hashlib.sha256("\n".join((*_surroundings(), *words)).encode()).hexdigest()
        path = folder / f"{self._name.rsplit('.', 1)[-1]}-{name[:40]}{_SUFFIX}"
        _used[path.name] = None
        loaded = _coming.take(path)
        if loaded is not None:
            return loaded
        with compile_cache.bypassed():
            compiled = self._jitted.lower(**moving, **fixed).compile()
        _save(path, compiled)
        return compiled


def remember(purpose: str) -> None:
    """Notes which programs this process has used, for the next ``prefetch`` of that purpose."""
    folder = _folder(compile_cache.cache_dir())
    if folder is None or not _used:
        return
    with contextlib.suppress(OSError):
        _write(folder / f"{purpose}.list", "\n".join(_used).encode())


def prefetch(purpose: str) -> None:
    """Begins to read the programs that ``remember(purpose)`` named last; returns at once."""
    folder = _folder(compile_cache.cache_dir())
    if folder is None:
        return
    try:
        names = (folder / f"{purpose}.list").read_text().split()
    except (OSError, UnicodeDecodeError):
        return
    paths = [folder / name for name in names if name.endswith(_SUFFIX) and "/" not in name]
    if paths:
        _coming.begin(paths)


class _Coming:
    """Programs that a thread reads before they are asked for, in the order of their use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Path] = deque()
        self._being_read: dict[Path, Future[Callable[..., Any] | None]] = {}

    def begin(self, paths: Iterable[Path]) -> None:
        self._waiting.extend(paths)
        # No daemon: stopped inside of XLA it would abort a process that ends early, with an error
        # that it has told. At the end at most one program is read to no purpose.
        threading.Thread(target=self._work, name="programs").start()

    def _work(self) -> None:
        while threading.main_thread().is_alive():
            with self._lock:
                if not self._waiting:
                    return
                path = self._waiting.popleft()
                future = self._being_read[path] = Future()
            future.set_result(_load(path))

    def take(self, path: Path) -> Callable[..., Any] | None:
        """The program in ``path``, read by now or read here; None as ``_load``."""
        with self._lock:
            future = self._being_read.pop(path, None)
            if future is None and path in self._waiting:
                self._waiting.remove(path)
        return _load(path) if future is None else future.result()


_coming = _Coming()
_used: dict[str, None] = {}  # names of files, in the order of their use


@functools.cache
def _folder(cache: Path | None) -> Path | None:
    """Where programs are kept in a user's cache; None where nothing is."""
    if cache is None or len(jax.devices()) > 1:
        return None
    return compile_cache.usable("programs", mode=0o700)


def _shape(leaf: Any) -> Any:
    """What a compiled program asks of an argument."""
    try:
        return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)
    except AttributeError:
        return type(leaf)


def _is_elsewhere(leaf: Any) -> bool:
    """Whether an array is not on the device that programs are kept for."""
    return isinstance(leaf, jax.Array) and leaf.sharding.device_set != {jax.devices()[0]}


@functools.cache
def _surroundings() -> tuple[str, ...]:
    """Everything outside of a function that decides what it is compiled to."""
    package = Path(__file__).parent.parent
    source = hashlib.sha256()
    for part in SOURCES:
        for file in sorted((package / part).rglob("*.py")):
            source.update(file.name.encode() + b"\0" + file.read_bytes())
    device = jax.devices()[0]
    return (
        source.hexdigest(),
        *(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "numpy")),
        platform.python_version(), device.device_kind, str(device.client.platform_version),
        _processor(), os.environ.get("XLA_FLAGS", ""),
        *(f"{name}={getattr(jax.config, name, None)}" for name in _SETTINGS),
    )  # fmt: skip


def _processor() -> str:
    """The processor with its instruction sets: programs for another one may not run here."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(x for x in lines if x.startswith(("model name", "flags", "Features")))
    return f"{platform.machine()} {platform.processor()} {platform.release()}"


def _load(path: Path) -> Callable[..., Any] | None:
    """The program in a file; None when there is none that can be trusted and used."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid not in (os.getuid(), 0):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        return None
    from jax.experimental import serialize_executable

    try:
        loaded = serialize_executable.deserialize_and_load(*pickle.loads(data))
    except Exception:  # whatever a runtime has against it, compiling anew is the answer
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return loaded


def _save(path: Path, compiled: Any) -> None:
    """Writes a program whole or not at all. One that can't be written is compiled next time."""
    from jax.experimental import serialize_executable

    try:
        # LAPACK is made ready when a call to it is traced; a process that only loads would crash.
        if "lapack_" in compiled.as_text():
            return
        data = pickle.dumps(serialize_executable.serialize(compiled))
    except Exception:  # not every backend and program can be serialised
        return
    with contextlib.suppress(OSError):
        _write(path, hashlib.sha256(data).digest() + data)
        _prune(path.parent)


def _write(path: Path, data: bytes) -> None:
    """A file that appears whole or not at all."""
    part = unfinished.name_for(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        unfinished.settled(part)


def _prune(folder: Path) -> None:
    """Removes the programs that were not used for longest, beyond LIMIT_BYTES."""
    unfinished.sweep_folder(folder)
    files = []
    for path in folder.glob(f"[!.]*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    kept = 0
    for _, size, path in sorted(files, reverse=True):
        kept += size
        if kept > LIMIT_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()
