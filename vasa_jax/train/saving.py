"""When a run saves, and what happens where a checkpoint cannot be written.

A full disk ends no run: it is told once, training goes on, and every minute another try follows
until one succeeds. Only a run that is over fails when its last checkpoint does, and names the one
to continue from. Several processes, which can only save together, end at the first failure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vasa_jax.checkpoint.train_state import Checkpoints, NotSaved
from vasa_jax.core.errors import UserError
from vasa_jax.train.log import RunLog
from vasa_jax.train.run_folder import machine
from vasa_jax.train.state import TrainState

PyTree = Any
RETRY_S = 60.0


class Diverged(UserError):
    """A loss or gradient stopped being a finite number; the message names the kept batch."""


class Saving:
    """The checkpoints of a run that trains.

    ``minutes`` (0: never) is the longest time between two. ``trained_s`` counts the seconds of
    training over all sessions of the run.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        log: RunLog,
        say: Callable[[str], None],
        *,
        seed: int,
        minutes: float,
    ):
        self.checkpoints = checkpoints
        self.trained_s = 0.0
        self._log, self._say, self._seed, self._minutes = log, say, seed, minutes
        self._began = self._tried = time.monotonic()
        self._failed = False
        self._kept: int | None = None  # the newest one when saving failed

    def begin(self) -> None:
        """Training begins now."""
        self._began = self._tried = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for a checkpoint, whatever the step. Tells of one that has failed."""
        if jax.process_count() == 1:
            self._settle(self.checkpoints.settle)
        kept = self.checkpoints.latest()
        if self._failed and kept != self._kept:
            self._say(f"checkpoint {kept} is saved: there is room again")
            self._failed = False
        waited_s = time.monotonic() - self._tried
        return (self._failed and waited_s > RETRY_S) or waited_s > 60 * self._minutes > 0

    def save(self, step: int, state: TrainState) -> float:
        """Save a checkpoint if it can be; returns the seconds that it held up the run."""
        began = time.monotonic()
        self._settle(self.checkpoints.wait)
        self._settle(lambda: self._save(step, state))
        self._tried = time.monotonic()
        return self._tried - began

    def finish(self, step: int, state: TrainState) -> None:
        """Save the last one, and return when it is on disk. UserError if it cannot be saved."""
        with contextlib.suppress(NotSaved):  # of one before this, which is all that is wanted now
            self.checkpoints.wait()
        try:
            self._save(step, state)
            self.checkpoints.wait()
        except NotSaved as error:
            self._log.write("event", step, event="save_failed", error=str(error))
            kept = self.checkpoints.latest()
            again = "begins anew" if kept is None else f"continues from step {kept}"
            raise UserError(
                f"{error}; {self.last()}; free some space, then the same command {again}"
            ) from None

    def last(self) -> str:
        """The newest checkpoint that is whole, in words."""
        with contextlib.suppress(NotSaved):
            self.checkpoints.wait()
        step = self.checkpoints.latest()
        return (
            "no checkpoint is there yet" if step is None else f"the last checkpoint is step {step}"
        )

    def _save(self, step: int, state: TrainState) -> None:
        # Only after metrics were checked; a gradient can still be bad where the loss was not.
        if not bool(_all_finite(state.params)):
            raise Diverged(
                f"step {step}: parameters are not finite, so nothing was saved; {self.last()}; "
                "lower optim.lr"
            )
        trained_s = self.trained_s + time.monotonic() - self._began
        self.checkpoints.save(
            step,
            params=state.params,
            ema=state.ema,
            rest=rest(state),
            meta={"seed": self._seed, "trained_s": trained_s, **machine()},
        )

    def _settle(self, act: Callable[[], None]) -> None:
        """Do something that finds out about a checkpoint, and tell when saving fails or works."""
        try:
            act()
        except NotSaved as error:
            if jax.process_count() > 1:
                raise
            self._tried = time.monotonic()
            self._log.write("event", error.step, event="save_failed", error=str(error))
            if not self._failed:
                self._say(
                    f"{error}; {self.last()}; training goes on, and saving is tried again every "
                    f"{RETRY_S:.0f} s"
                )
            self._failed, self._kept = True, self.checkpoints.latest()


def rest(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint keeps of a state beside the parameters and their average."""
    return {
        "opt_state": state.opt_state,
        "step": state.step,
        "key": state.key,
        "extra": state.extra,
    }


def restored(
    checkpoints: Checkpoints, like: TrainState, changed: Sequence[str]
) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint as a state with the structure of ``like`` (shapes suffice).

    UserError where it does not fit, with the settings that have ``changed``.
    """
    try:
        params, ema, others, meta = checkpoints.restore(
            params=like.params, ema=like.ema, rest=rest(like)
        )
    except UserError as error:
        if not changed:
            raise
        more = "; ..." if len(changed) > 3 else ""
        raise UserError(f"{error}; changed since: {'; '.join(changed[:3])}{more}") from None
    return TrainState(params=params, ema=ema, **others), meta


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
