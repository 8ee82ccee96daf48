"""The motion space of named weights: what the lite face and the synthetic people are driven by.

``M = 54`` numbers per frame: the pose that every space has (``core/types.py``), then::

    7:9    gaze        yaw pitch (rad), of the eyes in the camera's frame
    9:54   expression  ARKit-like weights in [0, 1], names in EXPRESSION_NAMES

Gaze is absolute (0, 0 looks into the camera). Expression is absolute for the mouth; brows, lids and
cheeks are added to the portrait's own resting face (see ``face/head/head.py``).

Only what is made for this space imports this module: the lite face and its head, its finish, its
data makers (``tests/contracts``). All else asks a ``MotionSpace``.
"""

from __future__ import annotations

from vasa_jax.core.types import POSE, POSE_NAMES

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
GAZE = slice(7, 9)
EXPRESSION = slice(9, MOTION_DIM)
MOTION_INDEX = {name: i for i, name in enumerate(MOTION_NAMES)}


def _indices(*prefixes: str) -> tuple[int, ...]:
    return tuple(
        EXPRESSION.start + i for i, name in enumerate(EXPRESSION_NAMES) if name.startswith(prefixes)
    )


MOUTH = _indices("jaw", "mouth", "cheekPuff")
LIDS = _indices("eyeBlink")
# What makes a viseme; the rest of the mouth is expression.
LIPS = _indices(
    "jawOpen", "mouthClose", "mouthFunnel", "mouthLowerDown", "mouthPress", "mouthPucker",
    "mouthRoll", "mouthUpperUp",
)  # fmt: skip
UPPER = _indices("brow", "eye", "cheekSquint", "nose")
GROUPS: dict[str, tuple[int, ...]] = {
    "pose": tuple(range(POSE.start, POSE.stop)),
    "gaze": tuple(range(GAZE.start, GAZE.stop)),
    "lips": LIPS,
    "mouth": tuple(i for i in MOUTH if i not in LIPS),
    "lids": LIDS,
    "upper": tuple(i for i in UPPER if i not in LIDS),
}
