"""Checkpoints of a training run (Orbax, asynchronous, the newest few kept).

One checkpoint holds four items, so that each can be read alone::

    params   the parameters            ema    their moving average (what a release ships)
    rest     optimiser, step, key ...  meta   JSON: step, versions, seconds trained

With several devices each writes its part, with several processes each its own files; a checkpoint
can be read on any other number of them. This file knows trees and folders, not the trainer (which
stands above it).

A checkpoint is there whole or not at all: it is written under another name and renamed. Where there
is no room for it ``NotSaved`` says so, those before stay, and the next may be tried at any time.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import logging
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax

from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences

PyTree = Any

FOLDER = "checkpoints"
ITEMS = ("params", "ema", "rest", "meta")


class NotSaved(UserError):
    """Checkpoint ``step`` could not be written. Nothing of it stays, and those before are whole."""

    def __init__(self, step: int, folder: Path, reason: str):
        super().__init__(f"checkpoint {step} could not be saved in {folder}: {reason}")
        self.step = step


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    Saving returns as soon as the arrays are copied; writing goes on in the background.
    Use as a context manager, or call ``close()``, so that the last one is complete.
    ``read_only`` leaves the folder as it is, which may be that of a run still training.
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2, read_only: bool = False):
        import orbax.checkpoint as ocp

        quiet_orbax()
        self.folder = Path(workdir).absolute() / FOLDER
        self._ocp, self._keep, self._read_only = ocp, keep, read_only
        self._saving: int | None = None  # the step that is being written
        self._failed: set[int] = set()
        self._open()

    def _open(self) -> None:
        options = self._ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            read_only=self._read_only,
            create=not self._read_only,
        )
        if not self._read_only and jax.process_index() == 0:
            # What a killed process left half-written; Orbax would do it some time later.
            for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
        self._manager = self._ocp.CheckpointManager(self.folder, options=options, item_names=ITEMS)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        # A run that ends by an error has said already what matters.
        with contextlib.suppress(*(() if kind is None else (NotSaved,))):
            self.close()

    def latest(self) -> int | None:
        """Step of the newest checkpoint that is known to be complete, or None."""
        return max((s for s in self._manager.all_steps() if s != self._saving), default=None)

    def save(
        self, step: int, *, params: PyTree, ema: PyTree, rest: PyTree, meta: dict[str, Any]
    ) -> None:
        """Save one checkpoint under ``step``; a step that is already saved is left alone.

        Raises NotSaved, also for the one before where that was not known yet.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        if jax.default_backend() == "cpu":
            # On CPU the background writer may share memory with arrays that the next step
            # donates; a copy is cheap and certain.
            params, ema, rest = jax.tree.map(lambda x: x.copy(), (params, ema, rest))
        args = self._ocp.args
        items = args.Composite(
            params=args.StandardSave(params),
            ema=args.StandardSave(ema),
            rest=args.StandardSave(rest),
            meta=args.JsonSave({**meta, "step": step}),
        )
        self._saving = step
        try:
            self._manager.save(step, args=items)
        except Exception as error:
            if disk_trouble(error) is None:
                raise
            raise self._given_up(step, error) from None

    def settle(self) -> None:
        """Raises NotSaved if the newest checkpoint has failed by now; costs nothing."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Return when everything saved so far is on disk. Raises NotSaved if it cannot be."""
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
            if not (self.folder / str(self._saving)).is_dir():
                raise OSError(errno.EIO, "it was not completed")
        except Exception as error:
            raise self._given_up(self._saving, error) from None
        self._saving = None
        self._clear()

    def _given_up(self, step: int, error: Exception) -> NotSaved:
        """Clear away what there is of the checkpoint being written, and be ready for another."""
        self._saving = None
        for _ in range(3):  # each of its layers raises the error once more before it closes
            try:
                self._manager.close()
                break
            except Exception:
                continue
        self._failed.add(step)
        self._open()
        return NotSaved(step, self.folder, disk_trouble(error) or _first_line(error))

    def _clear(self, until: float = math.inf) -> None:
        """Remove what late writers of failed checkpoints have left, up to a time."""
        for step in self._failed - {self._saving}:
            for left in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                with contextlib.suppress(OSError):
                    if left.stat().st_ctime < until:
                        shutil.rmtree(left, ignore_errors=True)

    def restore(
        self, *, params: PyTree, ema: PyTree, rest: PyTree, step: int | None = None
    ) -> tuple[PyTree, PyTree, PyTree, dict[str, Any]]:
        """Read a checkpoint (the newest by default) into trees like the given ones.

        The arguments may be arrays or ``jax.ShapeDtypeStruct``; structure, shapes and dtypes must
        match, else UserError names the first paths that differ.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.folder}")
        args = self._ocp.args
        wanted = {"params": params, "ema": ema, "rest": rest}
        self._check(step, wanted)
        items = {name: args.StandardRestore(tree) for name, tree in wanted.items()}
        got = self._restored(step, args.Composite(meta=args.JsonRestore(), **items))
        return got["params"], got["ema"], got["rest"], dict(got["meta"])

    def _check(self, step: int, wanted: dict[str, PyTree]) -> None:
        """UserError unless the trees in a checkpoint are shaped as wanted; reads no array."""
        handler = self._ocp.StandardCheckpointHandler()
        found = []
        for item, tree in wanted.items():
            # A key is kept as the numbers that it is made of.
            like = jax.eval_shape(lambda t: jax.tree.map(_raw, t), tree)
            try:
                kept = handler.metadata(self._item(step, item)).tree
            except Exception as error:
                raise self._unreadable(step, error) from None
            # Of params alone every name is known without the item.
            prefix = "" if item == "params" else f"{item}/"
            found += [prefix + line for line in differences(_shapes(kept), like)]
            if found:
                break
        if found:
            raise UserError(
                f"checkpoint {step} in {self.folder} does not fit this config: "
                f"{'; '.join(found[:3])}{' ...' if len(found) > 3 else ''} "
                "(use the config it was trained with, or another --workdir)"
            )

    def _item(self, step: int, item: str) -> Any:
        from etils import epath

        return epath.Path(self.folder) / str(step) / item

    def _restored(self, step: int, args: Any) -> Any:
        try:
            return self._manager.restore(step, args=args)
        except Exception as error:
            raise self._unreadable(step, error) from None

    def _unreadable(self, step: int, error: Exception) -> UserError:
        before = [s for s in self._manager.all_steps() if s < step]
        instead = f"from step {max(before)}" if before else "from the beginning"
        return UserError(
            f"checkpoint {step} in {self.folder} cannot be read ({_first_line(error)}); "
            f"move its folder away to continue {instead}"
        )

    def read(self, item: str, step: int | None = None) -> PyTree:
        """One item alone as nested dicts of numpy arrays (``meta``: a dict)."""
        step = self.latest() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.folder}; train first, or check the path")
        args = self._ocp.args
        # Arrays that lay on more devices than are here come to one.
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        kind = args.JsonRestore() if item == "meta" else args.StandardRestore(fallback_sharding=one)
        got = self._restored(step, args.Composite(**{item: kind}))[item]
        return got if item == "meta" else jax.device_get(got)

    def close(self) -> None:
        """Wait for the last one, then let go of the folder. Raises NotSaved as ``wait``."""
        try:
            self.wait()
        finally:
            self._manager.close()
            if self._failed:
                # Python waits for the last writers after this. What is made later is another run's.
                atexit.register(self._clear, time.time() + 5.0)
            self._clear()


@functools.cache
def quiet_orbax() -> None:
    """Leave it to the run to say what a user has to know; only what is sure to be told is hidden.

    Orbax logs every step, and every error with a traceback before it raises it. When one array
    cannot be written or read, the others' writers complain in addition: each prints that the event
    loop which waited for it is closed, and asyncio that nobody wanted its error.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
    before = sys.unraisablehook

    def hook(raised: Any) -> None:
        if not (
            isinstance(raised.exc_value, RuntimeError) and "loop is closed" in str(raised.exc_value)
        ):
            before(raised)

    sys.unraisablehook = hook


def disk_trouble(error: BaseException) -> str | None:
    """What a disk refused, in words, if that is what an error of Python or Orbax is about."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC or "No space left on device" in text:
        return "the disk is full"
    if number == errno.EDQUOT or "quota exceeded" in text.lower():
        return "the quota of the disk is used up"
    if number == errno.EFBIG or "File too large" in text:
        return "the system allows no files as large"
    return (error.strerror or text) if isinstance(error, OSError) else None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _raw(leaf: Any) -> Any:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _shapes(kept: PyTree) -> PyTree:
    """Orbax's descriptions of arrays as JAX's."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), kept)


def read_params(workdir: str | Path, *, item: str = "ema") -> tuple[int, dict[str, Any]]:
    """Step and parameters (``ema`` or ``params``) of the newest checkpoint of a run folder.

    Returns nested dicts of numpy arrays. UserError when the folder is not a run.
    """
    folder = Path(workdir)
    if not (folder / FOLDER).is_dir():
        raise UserError(f"{folder} is not a training run (it has no {FOLDER}/ folder)")
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.latest()
        tree = checkpoints.read(item, step)
    assert step is not None  # read() raised otherwise
    return step, tree
