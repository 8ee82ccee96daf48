"""What the lite model's head does more than people's do: it strays, it trembles, it turns too far.

All that is mended after the model, frame by frame alike offline and live. Measured on pictures
(experiments/2026-11-21_steady_head): distance strayed by 3.8 %, people's by 1.3 %, and the head's
jitter was above theirs; turns of 40 degrees came, where one portrait shows no face.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.core.types import MOTION_INDEX, Controls
from vasa_jax.generate.wishes import distance_to_log_scale

ANGLES = [MOTION_INDEX[name] for name in ("yaw", "pitch", "roll")]
PLACE = [MOTION_INDEX[name] for name in ("tx", "ty", "log_scale")]
HELD = 0.8  # share of the slow part of the place that is taken away
FARTHEST = np.radians([25.0, 18.0, 15.0]).astype(np.float32)  # of ANGLES, approached, not reached
FOLLOW = 0.85  # share of its way to the model's angles that the head covers in a frame


def held_place(controls: Controls) -> tuple[np.ndarray, np.ndarray]:
    """Goals (T, 3) of the slow part of ``PLACE``, and how firmly it is drawn there, (T, 3).

    The portrait's own place; a wish for a distance wins over that, and is kept to the full.
    """
    on = np.asarray(controls.distance_on, np.float32)
    ratio = np.where(on > 0, np.asarray(controls.distance, np.float32), 1.0)
    nothing = np.zeros_like(on)
    goal = np.stack([nothing, nothing, distance_to_log_scale(ratio)], -1)
    weight = np.stack([nothing, nothing, on], -1)
    return goal, np.maximum(weight, np.float32(HELD))


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
