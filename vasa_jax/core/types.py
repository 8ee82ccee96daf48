"""The values that travel between stations, and what is alike in every motion space.

The first seven numbers of a motion vector, one vector per video frame (25 fps)::

    0:7    pose        yaw pitch roll (rad)  tx ty tz (head widths)  log_scale

Signs, drawn as the viewer sees the picture: positive yaw turns towards the right edge of the
picture, positive pitch up, positive roll clockwise; tx right, ty up, tz towards the viewer.
``log_scale`` is the log of apparent size, so a distance ratio r is ``log_scale = -log(r)``; with it
present tz carries nothing and is kept at zero.

A *driving* motion is relative to the portrait: its pose is added to the portrait's own pose, so
that zero pose reproduces the portrait. What follows the pose is a matter of the space
(``core/space.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS  # 640
HEAD_WIDTH_CM = 14.0

POSE_NAMES = ("yaw", "pitch", "roll", "tx", "ty", "tz", "log_scale")
POSE = slice(0, 7)

EMOTIONS = (
    "neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted", "contempt",
)  # fmt: skip

# Compiled code takes numpy and jax arrays alike, which the type checker can't express.
Array: TypeAlias = Any


class Controls(NamedTuple):
    """What the user asks of the motion, one row per video frame, time after batch.

    A control that is not asked for has ``*_on`` = 0 and is replaced by its learned null.
    """

    gaze: Array  # (..., T, 2) yaw, pitch in rad, camera frame
    gaze_on: Array  # (..., T) 0 or 1
    distance: Array  # (..., T) ratio to the portrait's own distance; 0.8 is nearer
    distance_on: Array  # (..., T)
    emotion: Array  # (..., T, 8) strengths in [0, 1], order of EMOTIONS
    emotion_on: Array  # (..., T)

    @staticmethod
    def none(*lead: int) -> Controls:
        """Nothing is asked, for arrays of leading shape ``lead`` (batch..., T)."""
        z = np.zeros(lead, np.float32)
        return Controls(
            gaze=np.zeros((*lead, 2), np.float32),
            gaze_on=z,
            distance=np.ones(lead, np.float32),
            distance_on=z,
            emotion=np.zeros((*lead, len(EMOTIONS)), np.float32),
            emotion_on=z,
        )
