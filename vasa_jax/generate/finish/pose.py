"""What a model's head does otherwise than people's, mended after it, in every motion space.

It strays, trembles and turns too far. Measured on pictures (experiments/2026-11-21_steady_head):
distance strayed by 3.8 %, people's by 1.3 %, and the head's jitter was above theirs; turns of 40
degrees came, where one portrait shows no face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vasa_jax.core.types import POSE_NAMES, Controls
from vasa_jax.generate.controls import distance_to_log_scale
from vasa_jax.generate.finish.lag import GLIDE_S, Lag, Settled

ANGLES = [POSE_NAMES.index(name) for name in ("yaw", "pitch", "roll")]
PLACE = [POSE_NAMES.index(name) for name in ("tx", "ty", "log_scale")]
HELD = 0.8  # share of the slow part of the place that is taken away
FARTHEST = np.radians([25.0, 18.0, 15.0]).astype(np.float32)  # of ANGLES, approached, not reached
FOLLOW = 0.85  # share of its way to the model's angles that the head covers in a frame


class PoseFinish:
    """Head pose, the first seven numbers of every motion space; the others pass untouched.

    * The head turns without trembling or going too far (``Calm``).
    * Its place stays near the portrait's own, at the distance that is asked for.
    * A bias of the pose is added to its angles.

    What is asked for in the first frame holds from there on; later changes glide. A latent space
    gets no more than this: no number of it is a lid, a lip, an eye or a feature of an emotion, so
    blinks, closures, gaze and emotions are left to the model and its conditions.
    """

    def __init__(self) -> None:
        self._calm, self._place, self._bias = Calm(), Settled(), Lag(GLIDE_S)

    def __call__(
        self,
        motion_TM: np.ndarray,
        controls: Controls,
        loud_T: Sequence[bool] | np.ndarray,
        *,
        pose_deg: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> np.ndarray:
        """The next frames (T, M); see ``finish.Finish``. A head moves in silence, too: of
        ``loud_T`` nothing is made."""
        out = np.array(motion_TM, np.float32)
        bias = np.asarray(pose_deg, np.float32)
        for i, row in enumerate(out):  # never all at once: the same bits however they are cut
            row[ANGLES] = self._calm(row[ANGLES])
            row[PLACE] = self._place(row[PLACE], *held_place(controls, i))
            row[ANGLES] += np.radians(self._bias(bias))
        return out


class Calm:
    """Angles of a head that turns without trembling, frame by frame.

    Turns bend towards ``FARTHEST``, those of ten degrees by half of one. Then a first-order low
    pass, late by 7 ms: a turn of the head arrives whole, its noise by a quarter less.
    """

    def __init__(self) -> None:
        self._now: np.ndarray | None = None

    def __call__(self, angles_3: np.ndarray) -> np.ndarray:
        wanted = FARTHEST * np.tanh(angles_3 / FARTHEST)
        now = wanted if self._now is None else self._now
        self._now = now + FOLLOW * (wanted - now)
        return self._now


def held_place(controls: Controls, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Goal (3,) of the slow part of ``PLACE`` in a frame, and how firmly it is drawn there, (3,).

    The portrait's own place; a distance that is asked for wins over that, and is kept to the full.
    """
    on = np.float32(controls.distance_on[frame])
    ratio = np.float32(controls.distance[frame]) if on > 0 else np.float32(1.0)
    goal = np.array([0.0, 0.0, distance_to_log_scale(ratio)], np.float32)
    return goal, np.maximum(np.array([0.0, 0.0, on], np.float32), np.float32(HELD))
