"""Checkpoints of a training run (Orbax, asynchronous, the newest few kept).

One checkpoint holds four items, so that each can be read alone::

    params   the parameters            ema    their moving average (what a release ships)
    rest     optimiser, step, key ...  meta   JSON: step, versions, seconds trained

With several devices each writes its part, with several processes each its own files; a checkpoint
can be read on any other number of them. This file knows trees and folders, not the trainer (which
stands above it).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax

from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences

PyTree = Any

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    Saving returns as soon as the arrays are copied; writing goes on in the background.
    Use as a context manager, or call ``close()``, so that the last one is complete.
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2):
        import orbax.checkpoint as ocp

        # Orbax and absl report every step at INFO; a run has its own progress line.
        logging.getLogger("absl").setLevel(logging.WARNING)
        self.folder = Path(workdir).absolute() / FOLDER
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                # What a killed process left half-written is cleared away.
                max_to_keep=keep,
                create=True,
                cleanup_tmp_directories=True,
            ),  # fmt: skip
            item_names=("params", "ema", "rest", "meta"),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self, step: int, *, params: PyTree, ema: PyTree, rest: PyTree, meta: dict[str, Any]
    ) -> None:
        """Save one checkpoint under ``step``; a step that is already saved is left alone."""
        if step in self._manager.all_steps():
            return
        if jax.default_backend() == "cpu":
            # On CPU the background writer may share memory with arrays that the next step
            # donates; a copy is cheap and certain.
            params, ema, rest = jax.tree.map(lambda x: x.copy(), (params, ema, rest))
        args = self._ocp.args
        self._manager.save(
            step,
            args=args.Composite(
                params=args.StandardSave(params),
                ema=args.StandardSave(ema),
                rest=args.StandardSave(rest),
                meta=args.JsonSave({**meta, "step": step}),
            ),
        )

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
        try:
            got = self._manager.restore(
                step,
                args=args.Composite(
                    meta=args.JsonRestore(),
                    **{name: args.StandardRestore(tree) for name, tree in wanted.items()},
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            differing = differences(self.read("params", step), params)
            if not differing:
                raise
            raise UserError(
                f"checkpoint {step} in {self.folder} does not fit this config: "
                f"{'; '.join(differing[:3])}{' ...' if len(differing) > 3 else ''} "
                "(use the config it was trained with, or another --workdir)"
            ) from error
        return got["params"], got["ema"], got["rest"], dict(got["meta"])

    def read(self, item: str, step: int | None = None) -> PyTree:
        """One item alone as nested dicts of numpy arrays (``meta``: a dict)."""
        step = self.latest() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {self.folder}; train first, or check the path")
        args = self._ocp.args
        # Arrays that lay on more devices than are here come to one.
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        kind = args.JsonRestore() if item == "meta" else args.StandardRestore(fallback_sharding=one)
        got = self._manager.restore(step, args=args.Composite(**{item: kind}))[item]
        return got if item == "meta" else jax.device_get(got)

    def wait(self) -> None:
        """Return when everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()


def read_params(workdir: str | Path, *, item: str = "ema") -> tuple[int, dict[str, Any]]:
    """Step and parameters (``ema`` or ``params``) of the newest checkpoint of a run folder.

    Returns nested dicts of numpy arrays. UserError when the folder is not a run.
    """
    folder = Path(workdir)
    if not (folder / FOLDER).is_dir():
        raise UserError(f"{folder} is not a training run (it has no {FOLDER}/ folder)")
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest()
        tree = checkpoints.read(item, step)
    assert step is not None  # read() raised otherwise
    return step, tree
