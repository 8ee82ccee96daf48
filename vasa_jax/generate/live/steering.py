"""What is asked of a live stream while it runs: controls and a bias of the head's pose, over time.

Both may change at any time. What is asked for as a stream begins holds from its first frame; later
changes glide, and what else happens to its motion is the finish's (``generate/finish``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import Controls
from vasa_jax.generate.controls import ControlTracks
from vasa_jax.generate.finish.finish import Finish

MAX_POSE_DEG = (25.0, 20.0, 20.0)  # yaw, pitch, roll of the bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Controls and a bias of the head's pose, (yaw, pitch, roll) in degrees."""

    controls: ControlTracks = dataclasses.field(default_factory=ControlTracks)
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)


def checked_pose(pose: Sequence[float]) -> tuple[float, float, float]:
    """``pose`` as (yaw, pitch, roll) in degrees. Raises UserError when it is none or too large."""
    try:
        values = tuple(float(v) for v in pose)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(v) for v in values):
        raise UserError("pose: expected [yaw, pitch, roll] in degrees")
    for value, limit in zip(values, MAX_POSE_DEG, strict=True):
        if abs(value) > limit:
            raise UserError(f"pose: {value:g} is outside {-limit:g} to {limit:g} degrees")
    return values  # type: ignore[return-value]


class Steering:
    """One stream's controls over time, handed to the finish of its motion."""

    def __init__(self, finish: Finish, *, asked: Asked | None = None):
        self._finish = finish
        self._asked, self._since = asked or Asked(), 0

    def ask(self, asked: Asked, *, frame: int) -> None:
        """New controls from ``frame`` on; tracks in them count their time from there."""
        self._asked, self._since = asked, frame

    def rows(self, frame: int, count: int) -> Controls:
        """Rows for frames ``frame`` to ``frame + count``, as they are asked for (no glide)."""
        return self._asked.controls.rows(count, start=max(0, frame - self._since))

    def finish(
        self, motion_TM: np.ndarray, controls: Controls, loud_T: Sequence[bool] | np.ndarray
    ) -> np.ndarray:
        """Driving motion of the next frames; ``controls`` and ``loud_T`` are of the same frames."""
        return self._finish(motion_TM, controls, loud_T, pose_deg=self._asked.pose_deg)
