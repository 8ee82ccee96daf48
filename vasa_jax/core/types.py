"""The values that travel between stations, and the one definition of the motion vector.

Motion vector, ``M = 54`` numbers per video frame (25 fps)::

    0:7    pose        yaw pitch roll (rad)  tx ty tz (head widths)  log_scale
    7:9    gaze        yaw pitch (rad), of the eyes in the camera's frame
    9:54   expression  ARKit-like weights in [0, 1], names in EXPRESSION_NAMES

Signs, drawn as the viewer sees the picture: positive yaw turns towards the right edge of the
picture, positive pitch up, positive roll clockwise; tx right, ty up, tz towards the viewer.
``log_scale`` is the log of apparent size, so a distance ratio r is ``log_scale = -log(r)``; with it
present tz carries nothing and the lite model keeps it at zero.

A *driving* motion is relative to the portrait: its pose is added to the portrait's own pose, so
that zero pose reproduces the portrait. Gaze is absolute (0, 0 looks into the camera). Expression is
absolute for the mouth; brows, lids and cheeks are added to the portrait's own resting face (see
``face/head/head.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS  # 640
HEAD_WIDTH_CM = 14.0

POSE_NAMES = ("yaw", "pitch", "roll", "tx", "ty", "tz", "log_scale")
GAZE_NAMES = ("gaze_yaw", "gaze_pitch")
# fmt: off
EXPRESSION_NAMES = (
    "browDown_L", "browDown_R", "browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R",
    "cheekPuff_L", "cheekPuff_R", "cheekSquint_L", "cheekSquint_R", "eyeBlink_L", "eyeBlink_R",
    "eyeSquint_L", "eyeSquint_R", "eyeWide_L", "eyeWide_R", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimple_L", "mouthDimple_R", "mouthFrown_L", "mouthFrown_R",
    "mouthFunnel", "mouthLeft", "mouthLowerDown_L", "mouthLowerDown_R", "mouthPress_L",
    "mouthPress_R", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmile_L", "mouthSmile_R", "mouthStretch_L",
    "mouthStretch_R", "mouthUpperUp_L", "mouthUpperUp_R", "noseSneer_L", "noseSneer_R",
)
# fmt: on
MOTION_NAMES = POSE_NAMES + GAZE_NAMES + EXPRESSION_NAMES
MOTION_DIM = len(MOTION_NAMES)  # 54
POSE = slice(0, 7)
GAZE = slice(7, 9)
EXPRESSION = slice(9, MOTION_DIM)
MOTION_INDEX = {name: i for i, name in enumerate(MOTION_NAMES)}

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
