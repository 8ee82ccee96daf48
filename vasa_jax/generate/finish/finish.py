"""What is done to a motion after the model, alike offline and live: which one a space has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import Controls
from vasa_jax.generate.finish.arkit import ArkitFinish
from vasa_jax.generate.finish.pose import PoseFinish


class Finish(Protocol):
    """One stream's finish, from its first frame to its last; it never looks ahead."""

    def __call__(
        self,
        motion_TM: np.ndarray,
        controls: Controls,
        loud_T: Sequence[bool] | np.ndarray,
        *,
        pose_deg: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> np.ndarray:
        """Driving motion (T, M) float32 of the next frames; what goes in is not changed.

        Any number of frames at a time: how they are cut into calls changes not a bit.

        Args:
            motion_TM: physical motion as the model made it.
            controls: what is asked of the same frames, leading shape (T,).
            loud_T: whether somebody speaks in them (``arkit.speaking``).
            pose_deg: a bias of the head's yaw, pitch and roll.
        """
        ...


def finish_for(space: MotionSpace, *, seed: int) -> Finish:
    """A new stream's finish; the same seed gives the same blinks, where a space has lids."""
    return ArkitFinish(seed=seed) if space.cfg.kind == "arkit" else PoseFinish()
