"""What is asked of a live stream while it runs, and what the model alone does not give.

Live there is no looking ahead, so everything here is causal and works frame by frame:

* controls (gaze, distance, emotion) and a bias of the head's pose may change at any time; they
  glide to their new value within ``GLIDE_S`` instead of jumping;
* the slow part of gaze and distance becomes what was asked for, an emotion's face is there at the
  least, lips on their way to touch do, and the head keeps near its place (``steady.settle`` with
  the mean of the past in place of a centred one);
* blinks where the model leaves the eyes open (``generate/finish/blinks.py``);
* in silence the lips close and stay closed; head, eyes and brows stay the model's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, Controls
from vasa_jax.generate.controls import ControlTracks
from vasa_jax.generate.finish.blinks import Blinker
from vasa_jax.generate.finish.steady import ANGLES, HELD, PLACE, calm, closing, held_place, lacking
from vasa_jax.motion.arkit.emotions import asked_feeling
from vasa_jax.motion.arkit.lips import pressed

GLIDE_S = 0.15  # time constant towards a new value
SLOW_S = 0.3  # controls own what is slower than this, the model what is faster
MAX_POSE_DEG = (25.0, 20.0, 20.0)  # yaw, pitch, roll of the bias
QUIET_DB = -50.0  # power of a frame, as the nets hear it, below which nobody speaks
QUIET_FRAMES = 6  # of quiet before the lips are closed: pauses within words stay the model's
CLOSE_S = 0.1  # time constant of the closing lips

# Weights that part the lips or hold a vowel's shape; smiles and frowns may stay.
OPENERS = tuple(
    MOTION_INDEX[name]
    for name in (
        "jawOpen", "jawForward", "mouthFunnel", "mouthPucker", "mouthLowerDown_L",
        "mouthLowerDown_R", "mouthUpperUp_L", "mouthUpperUp_R", "mouthShrugLower",
        "mouthShrugUpper", "mouthStretch_L", "mouthStretch_R", "mouthClose",
    )
)  # fmt: skip


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
    """One stream's controls over time and the finish of its motion."""

    def __init__(self, *, seed: int, asked: Asked | None = None):
        self._asked, self._since = asked or Asked(), 0
        self._glide: dict[str, Any] = {"place on": np.full(3, HELD, np.float32)}
        self._angles: np.ndarray | None = None
        self._slow: dict[str, np.ndarray] = {}
        self._blink = Blinker(seed=seed)
        self._quiet, self._open = 0, 1.0

    def ask(self, asked: Asked, *, frame: int) -> None:
        """New controls from ``frame`` on; tracks in them count their time from there."""
        self._asked, self._since = asked, frame

    def rows(self, frame: int, count: int) -> Controls:
        """Rows for frames ``frame`` to ``frame + count``, as they are asked for (no glide)."""
        return self._asked.controls.rows(count, start=max(0, frame - self._since))

    def finish(
        self, motion_TM: np.ndarray, controls: Controls, loud_T: Sequence[bool]
    ) -> np.ndarray:
        """Driving motion of the next frames: settled, biased, blinking, its lips shut in silence.

        ``controls`` has the rows of the same frames; ``loud_T`` says where somebody speaks.
        """
        out = calm(motion_TM, self._angles)
        self._angles = out[-1, ANGLES]
        goals, held = held_place(controls)
        felt = asked_feeling(controls, out)
        for i, row in enumerate(out):
            on = np.asarray(controls.gaze_on)[i]
            self._settle("gaze", row, GAZE, np.asarray(controls.gaze)[i], on)
            self._settle("place", row, PLACE, goals[i], held[i])
            self._feel(row, felt[i])
            row[ANGLES] += np.radians(self._towards("pose", np.asarray(self._asked.pose_deg)))
            self._close_lips(row, bool(loud_T[i]))
        return self._blink(out)

    def _settle(
        self, name: str, row: np.ndarray, columns: slice | list[int], target: np.ndarray, on: Any
    ) -> None:
        slow = self._slowly(name, row[columns])
        weight = self._towards(f"{name} on", np.asarray(on, np.float32))
        if np.any(on > 0):
            wanted = self._towards(name, target)
        else:  # let go from where it is
            wanted = self._glide.get(name, target)
        row[columns] += (wanted - slow) * weight
        if np.all(on == 0) and np.all(weight < 1e-3):
            self._glide.pop(name, None)

    def _feel(self, row: np.ndarray, felt_E: np.ndarray) -> None:
        spoken = row[EXPRESSION].copy()
        usual = self._slowly("feeling", spoken)
        shown = spoken + lacking(self._towards("feeling", felt_E), usual)
        row[EXPRESSION] = pressed(shown, closing(spoken, usual))

    def _slowly(self, name: str, own: np.ndarray) -> np.ndarray:
        """The slow part of what the model does, after one more frame of it."""
        slow = self._slow.get(name, own.copy())
        self._slow[name] = slow + (own - slow) * _share(SLOW_S)
        return self._slow[name]

    def _towards(self, name: str, target: np.ndarray | np.float32) -> np.ndarray:
        first = np.asarray(target, np.float32)
        if name.endswith(" on") or name == "pose":
            first = np.zeros_like(first)
        now = self._glide.get(name, first)
        self._glide[name] = now + (np.asarray(target, np.float32) - now) * _share(GLIDE_S)
        return self._glide[name]

    def _close_lips(self, row: np.ndarray, loud: bool) -> None:
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet > QUIET_FRAMES:
            self._open -= self._open * _share(CLOSE_S)
        else:
            self._open = min(1.0, self._open + 0.5)
        row[list(OPENERS)] *= self._open


def loud_frames(power_db_T: np.ndarray) -> np.ndarray:
    """(T,) whether somebody may be speaking in each frame, by ``audio.features.power_db``."""
    return power_db_T > QUIET_DB


def _share(seconds: float) -> float:
    """What a first-order lag covers of its way in one frame."""
    return 1.0 - math.exp(-1.0 / (FPS * seconds))
