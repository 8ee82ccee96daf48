"""What only named weights can have: gaze, an emotion's face, lips that close, blinks.

The lite model's lips come near on p, b and m and do not always touch: where a model is unsure, it
says the mean. Lips that are much nearer than they usually are while somebody speaks are on their
way to touch, so they are brought there (experiments/2026-11-23_closures).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.types import Controls
from vasa_jax.generate.finish.blinks import Blinker
from vasa_jax.generate.finish.lag import GLIDE_S, SLOW_S, Lag, Settled, share
from vasa_jax.generate.finish.pose import PoseFinish
from vasa_jax.motion.arkit.emotions import asked_feeling
from vasa_jax.motion.arkit.lips import lip_gap_cm, pressed

NEAR = 1.2  # lips nearer than their usual gap over this close; at no gap at all to the full
SPEAKING_CM = 0.1  # usual gap below which nobody speaks and nothing is brought together
QUIET_DB = -50.0  # power of a frame, as the nets hear it, below which nobody speaks
QUIET_FRAMES = 6  # of quiet before the lips are closed: pauses within words stay the model's
CLOSE_S = 0.1  # time constant of the closing lips

# Weights that part the lips or hold a vowel's shape; smiles and frowns may stay.
OPENERS = np.array([
    MOTION_INDEX[name]
    for name in (
        "jawOpen", "jawForward", "mouthFunnel", "mouthPucker", "mouthLowerDown_L",
        "mouthLowerDown_R", "mouthUpperUp_L", "mouthUpperUp_R", "mouthShrugLower",
        "mouthShrugUpper", "mouthStretch_L", "mouthStretch_R", "mouthClose",
    )
])  # fmt: skip
NO_FEELING = np.zeros(EXPRESSION.stop - EXPRESSION.start, np.float32)


class ArkitFinish:
    """Named weights, after ``PoseFinish`` has done its part.

    * The slow part of gaze becomes what is asked for.
    * What an emotion that is asked for shows on a face (``motion/arkit/emotions.py``) is there at
      the least, but lips that speech shuts stay shut.
    * Lips on their way to touch do; in silence they close and stay closed.
    * The eyes blink where the model leaves them open (``blinks.py``).
    """

    def __init__(self, *, seed: int):
        self._pose, self._blink = PoseFinish(), Blinker(seed=seed)
        self._gaze, self._feeling, self._usual = Settled(), Lag(GLIDE_S), Lag(SLOW_S)
        self._quiet, self._open = 0, 1.0

    def __call__(
        self,
        motion_TM: np.ndarray,
        controls: Controls,
        loud_T: Sequence[bool] | np.ndarray,
        *,
        pose_deg: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> np.ndarray:
        """The next frames (T, 54); see ``finish.Finish``."""
        controls = Controls(*(np.asarray(x) for x in controls))
        out = self._pose(motion_TM, controls, loud_T, pose_deg=pose_deg)
        for i, row in enumerate(out):
            row[GAZE] = self._gaze(row[GAZE], controls.gaze[i], controls.gaze_on[i])
            felt = NO_FEELING
            if controls.emotion_on[i]:
                felt = asked_feeling(Controls(*(x[i : i + 1] for x in controls)), row[None])[0]
            row[EXPRESSION] = self._felt(row[EXPRESSION], felt)
            row[OPENERS] *= self._opening(bool(loud_T[i]))
        return self._blink(out)

    def _felt(self, spoken_E: np.ndarray, felt_E: np.ndarray) -> np.ndarray:
        usual = self._usual(spoken_E)
        shown = spoken_E + lacking(self._feeling(felt_E), usual)
        return pressed(shown, closing(spoken_E, usual))

    def _opening(self, loud: bool) -> float:
        """Share of the lips' opening that is left in the next frame."""
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet > QUIET_FRAMES:
            self._open -= self._open * share(CLOSE_S)
        else:
            self._open = min(1.0, self._open + 0.5)
        return self._open


def closing(expression: np.ndarray, usual_expression: np.ndarray) -> np.ndarray:
    """How far lips are on their way to touch, 0 to 1, beside those of the time before.

    Both are expressions (..., 45); the result has the shape (...).
    """
    gap, usual = lip_gap_cm(expression), lip_gap_cm(usual_expression)
    return np.clip((usual - NEAR * gap) / np.maximum(usual, SPEAKING_CM), 0.0, 1.0)


def lacking(felt_E: np.ndarray, slow_E: np.ndarray) -> np.ndarray:
    """What expressions (..., 45) lack of a feeling; those it does not ask for lack nothing."""
    return np.maximum(felt_E - np.maximum(slow_E, 0.0), 0.0)


def loud_frames(power_db_T: np.ndarray) -> np.ndarray:
    """(T,) whether somebody may be speaking in each frame, by ``audio.features.power_db``."""
    return power_db_T > QUIET_DB


def speaking(loud_T: np.ndarray, count: int) -> np.ndarray:
    """(count,) whether somebody speaks in each frame or begins to in the next one.

    Lips part before a sound. ``loud_T`` covers those frames and what is known after them.
    """
    loud = np.append(np.asarray(loud_T, bool), False)
    return loud[:count] | loud[1 : count + 1]
