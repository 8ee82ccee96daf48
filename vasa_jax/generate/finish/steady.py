"""What the lite model does otherwise than people, mended after it, alike offline and live.

Its head strays, trembles and turns too far. Measured on pictures
(experiments/2026-11-21_steady_head): distance strayed by 3.8 %, people's by 1.3 %, and the head's
jitter was above theirs; turns of 40 degrees came, where one portrait shows no face.

Its lips come near on p, b and m and do not always touch: where a model is unsure, it says the mean.
Lips that are much nearer than they usually are while somebody speaks are on their way to touch, so
they are brought there (experiments/2026-11-23_closures).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.types import FPS, Controls
from vasa_jax.generate.controls import distance_to_log_scale
from vasa_jax.motion.arkit.emotions import asked_feeling
from vasa_jax.motion.arkit.lips import lip_gap_cm, pressed

ANGLES = [MOTION_INDEX[name] for name in ("yaw", "pitch", "roll")]
PLACE = [MOTION_INDEX[name] for name in ("tx", "ty", "log_scale")]
HELD = 0.8  # share of the slow part of the place that is taken away
FARTHEST = np.radians([25.0, 18.0, 15.0]).astype(np.float32)  # of ANGLES, approached, not reached
SETTLE_SECONDS = 0.6  # controls own what is slower than this, the model what is faster
NEAR = 1.2  # lips nearer than their usual gap over this close; at no gap at all to the full
SPEAKING_CM = 0.1  # usual gap below which nobody speaks and nothing is brought together
FOLLOW = 0.85  # share of its way to the model's angles that the head covers in a frame


def held_place(controls: Controls) -> tuple[np.ndarray, np.ndarray]:
    """Goals (T, 3) of the slow part of ``PLACE``, and how firmly it is drawn there, (T, 3).

    The portrait's own place; a distance that is asked for wins over that, and is kept to the full.
    """
    on = np.asarray(controls.distance_on, np.float32)
    ratio = np.where(on > 0, np.asarray(controls.distance, np.float32), 1.0)
    nothing = np.zeros_like(on)
    goal = np.stack([nothing, nothing, distance_to_log_scale(ratio)], -1)
    weight = np.stack([nothing, nothing, on], -1)
    return goal, np.maximum(weight, np.float32(HELD))


def settle(motion_TM: np.ndarray, controls: Controls) -> np.ndarray:
    """Motion whose slow part of gaze and place is what was asked for, or near the portrait's own.

    The model was asked through its condition token, too, and what it adds at higher frequency
    (saccades, sway) stays; this only removes a lasting offset from the number the user gave. What
    an emotion that is asked for shows on a face (``motion/arkit/emotions.py``) is there at the
    least, but lips that speech shuts stay shut.
    """
    out = np.array(motion_TM, np.float32)
    wanted: tuple[tuple[Any, np.ndarray, np.ndarray], ...] = (
        (GAZE, np.asarray(controls.gaze), np.asarray(controls.gaze_on)[:, None]),
        (PLACE, *held_place(controls)),
    )
    for columns, target, on in wanted:
        if np.any(on):
            gap = target - _slow(out[:, columns])
            out[:, columns] += gap * on
    felt, spoken = asked_feeling(controls, out), out[:, EXPRESSION].copy()
    usual = _slow(spoken)
    if np.any(felt):
        out[:, EXPRESSION] += lacking(_slow(felt), usual)
    out[:, EXPRESSION] = pressed(out[:, EXPRESSION], closing(spoken, usual))
    return out


def closing(expression: np.ndarray, usual_expression: np.ndarray) -> np.ndarray:
    """How far lips are on their way to touch, 0 to 1, beside those of the time around.

    Both are expressions (..., 45); the result has the shape (...).
    """
    gap, usual = lip_gap_cm(expression), lip_gap_cm(usual_expression)
    return np.clip((usual - NEAR * gap) / np.maximum(usual, SPEAKING_CM), 0.0, 1.0)


def lacking(felt_TE: np.ndarray, slow_TE: np.ndarray) -> np.ndarray:
    """What expressions (T, 45) lack of a feeling; those that it does not ask for lack nothing."""
    return np.maximum(felt_TE - np.maximum(slow_TE, 0.0), 0.0)


def _slow(x_TC: np.ndarray) -> np.ndarray:
    """Each column without what is faster than ``SETTLE_SECONDS``; both ends are held."""
    half = int(SETTLE_SECONDS * FPS / 2)
    padded = np.pad(x_TC, [(half, half), (0, 0)], mode="edge")
    total = np.cumsum(np.concatenate([np.zeros((1, x_TC.shape[1])), padded]), axis=0)
    return (total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1)


def calm(motion_TM: np.ndarray, before_3: np.ndarray | None = None) -> np.ndarray:
    """A copy whose head turns without trembling; ``before_3`` are its angles one frame earlier.

    Turns bend towards ``FARTHEST``, those of ten degrees by half of one. Then a first-order low
    pass, late by 7 ms: a turn of the head arrives whole, its noise by a quarter less.
    """
    out = np.array(motion_TM, np.float32)
    out[:, ANGLES] = FARTHEST * np.tanh(out[:, ANGLES] / FARTHEST)
    now = out[0, ANGLES] if before_3 is None and len(out) else before_3
    for row in out:
        now = now + FOLLOW * (row[ANGLES] - now)
        row[ANGLES] = now
    return out
