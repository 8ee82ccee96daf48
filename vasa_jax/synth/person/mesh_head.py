"""The full-resolution morphable head that the engine renders.

Read from a ``facekit.npz`` (ICT-FaceKit topology, MIT) given by path; without one a small built-in
head of the same interface serves the tests. Units cm, x towards the picture's right edge, y up,
z towards the viewer. ``_L`` is the side of +x.

Deformation, pivot and camera are those of ``face/head/head.py`` (the reduced head of the model),
so that a vertex of the big mesh projects exactly where the model's own geometry expects it::

    v  = neutral + identity @ a + expression @ e + look @ lids;  eyeballs rotate about their centres
    v' = R(yaw, pitch, roll) (v - PIVOT) + PIVOT        R = Ry Rx Rz
    d  = 1 / (1 - z' / CAMERA_CM)
    X  = cx + s x' d,   Y = cy - s y' d                 in [-1, 1] of the square picture
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES, GAZE
from vasa_jax.core.types import HEAD_WIDTH_CM
from vasa_jax.face.head.head import LID_TRAVEL, LIDS_SHUT_CM

CAMERA_CM = 70.0
PIVOT_CM = np.array([0.0, -7.0, -1.0], np.float32)
MAX_EYE_YAW, MAX_EYE_PITCH = 0.55, 0.42  # rad, eye in head
GROUPS = (
    "face", "head_neck", "mouth_socket", "eye_socket_l", "eye_socket_r", "gums_tongue", "teeth",
    "sclera_l", "iris_l", "sclera_r", "iris_r", "eyelash_l", "eyelash_r",
)  # fmt: skip
G = {name: i for i, name in enumerate(GROUPS)}
LID_PAIRS = (((43, 47), (44, 46)), ((37, 41), (38, 40)))  # upper, lower lid in landmarks68; L, R
_BLINK = [EXPRESSION_NAMES.index("eyeBlink_L"), EXPRESSION_NAMES.index("eyeBlink_R")]
_SMILE = [EXPRESSION_NAMES.index("mouthSmile_L"), EXPRESSION_NAMES.index("mouthSmile_R")]
_STRETCH = [EXPRESSION_NAMES.index("mouthStretch_L"), EXPRESSION_NAMES.index("mouthStretch_R")]


@dataclass(frozen=True)
class MeshHead:
    """V vertices, F triangles, I identity modes."""

    neutral: np.ndarray  # (V, 3) float32 cm
    identity: np.ndarray  # (I, V, 3) float16 cm per sigma
    expression: np.ndarray  # (45, V, 3) float32 cm at weight 1
    look: np.ndarray  # (8, V, 3) lids following the eye: up L R, down L R, in L R, out L R
    triangles: np.ndarray  # (F, 3) int32, counter-clockwise from outside
    group: np.ndarray  # (F,) int32 into GROUPS
    uv: np.ndarray  # (F, 3, 2) float32; the face is the unit square, v up
    landmarks68: np.ndarray  # (68,) int, iBUG order, 0..16 from the picture's left to its right
    ranges: dict[str, tuple[int, int]]  # vertices of each group
    lip_gap_cm: float  # opening of the inner lips that still looks shut

    @property
    def vertex_count(self) -> int:
        return len(self.neutral)


def person_shape(head: MeshHead, identity_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neutral vertices (V, 3) and eye centres (2, 3: left, right) of one identity."""
    v = head.neutral + np.tensordot(identity_I.astype(np.float32), head.identity, 1)
    return v.astype(np.float32), np.stack([_sphere_centre(v[slice(*r)]) for r in _eyes(head)])


def shut_lips(head: MeshHead, identity_I: np.ndarray) -> np.ndarray:
    """The nearest identity whose lips touch at rest: a least-norm step along the lip gap."""
    up, low = head.landmarks68[[61, 62, 63]], head.landmarks68[[67, 66, 65]]
    rows = (head.identity[:, up, 1].astype(np.float64) - head.identity[:, low, 1]).T  # (3, I)
    gap = head.neutral[up, 1] - head.neutral[low, 1] + rows @ identity_I
    if not np.any(rows):
        return identity_I
    step, *_ = np.linalg.lstsq(rows, head.lip_gap_cm - gap, rcond=None)
    return identity_I + step


def _eyes(head: MeshHead) -> list[tuple[int, int]]:
    return [head.ranges["sclera_l"], head.ranges["sclera_r"]]


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Least-squares sphere through points (the sclera mesh with its corneal bulge)."""
    q = points.astype(np.float64)
    a = np.c_[2 * q, np.ones(len(q))]
    return np.linalg.lstsq(a, (q**2).sum(1), rcond=None)[0][:3].astype(np.float32)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) for the signs of ``core/types.py``: positive yaw right, pitch up, roll clockwise."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rx = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    rz = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (ry @ rx @ rz).astype(np.float32)


def eye_in_head(rot_33: np.ndarray, gaze_2: np.ndarray) -> tuple[float, float]:
    """Yaw and pitch of the eyes in the head for a gaze in the camera's frame, limited."""
    y, p = float(gaze_2[0]), float(gaze_2[1])
    x, u, f = rot_33.T @ np.array(
        [math.sin(y) * math.cos(p), math.sin(p), math.cos(y) * math.cos(p)], np.float32
    )
    yaw, pitch = math.atan2(x, f), math.atan2(u, math.hypot(x, f))
    return (
        min(max(yaw, -MAX_EYE_YAW), MAX_EYE_YAW),
        min(max(pitch, -MAX_EYE_PITCH), MAX_EYE_PITCH),
    )


def deform(
    head: MeshHead,
    shape_V3: np.ndarray,
    centres_23: np.ndarray,
    expression_45: np.ndarray,
    eye_2: tuple[float, float],
) -> np.ndarray:
    """Expression and eye rotation in the head's own frame, (V, 3) cm."""
    yaw, pitch = eye_2
    up, down, right, left = (
        max(pitch, 0) / 0.5, max(-pitch, 0) / 0.5, max(yaw, 0) / 0.6, max(-yaw, 0) / 0.6,
    )  # fmt: skip
    look = np.array([up, up, down, down, left, right, right, left], np.float32)
    v = shape_V3.copy()
    used = np.flatnonzero(np.abs(expression_45) > 1e-4)
    for i in np.setdiff1d(used, _BLINK):
        v += expression_45[i] * head.expression[i]
    for i in np.flatnonzero(look > 1e-4):
        v += look[i] * head.look[i]
    v += sum(_lids(head, v, expression_45))
    # a wide smile draws the lips back over the teeth, which would come through them
    smile = float(expression_45[_SMILE].mean() + 0.5 * expression_45[_STRETCH].mean())
    for name in ("teeth", "gums_tongue"):
        a, b = head.ranges[name]
        v[a:b, 2] -= 0.12 + 0.45 * min(smile, 1.2)
    rot = rotation(yaw, pitch, 0.0)
    for side, (a, b) in enumerate(_eyes(head)):
        blink = float(np.clip(expression_45[_BLINK[side]], 0, 1))
        q = (v[a:b] - centres_23[side]) @ rot.T
        length = np.linalg.norm(q, axis=1, keepdims=True)
        # the corneal bulge would poke through a closed lid
        limit = 1.47 - 0.10 * blink
        q = np.where(
            length > limit, q * ((limit + (length - limit) * (1 - 0.9 * blink)) / length), q
        )
        v[a:b] = q + centres_23[side] - np.array([0, 0, 0.03 + 0.05 * blink], np.float32)
    return v


def _lids(head: MeshHead, open_V3: np.ndarray, expression_45: np.ndarray) -> list[np.ndarray]:
    """What the blinks add to a head whose lids are open: see ``face.head.close_lids``."""
    moves = []
    for i, pairs in zip(_BLINK, LID_PAIRS, strict=True):
        share, blink = float(np.clip(expression_45[i], 0, 1)), head.expression[i]
        if share < 1e-4:
            continue
        upper, lower = head.landmarks68[np.array(pairs).T]
        gap = open_V3[upper, 1] - open_V3[lower, 1]
        travel = blink[lower, 1] - blink[upper, 1]  # by which weight 1 brings the lids together
        times = np.clip((gap - LIDS_SHUT_CM) / travel, *LID_TRAVEL)
        x = head.neutral[:, 0]
        ends = head.neutral[upper, 0]
        across = np.clip((x - ends[0]) / (ends[1] - ends[0]), 0, 1)
        moves.append(share * (times[0] + (times[1] - times[0]) * across)[:, None] * blink)
    return moves


@dataclass(frozen=True)
class PlacedHead:
    """A head in camera space and on the picture."""

    deformed: np.ndarray  # (V, 3) cm, head frame
    camera: np.ndarray  # (V, 3) cm, after rotation about the pivot
    rotation: np.ndarray  # (3, 3)
    placement: np.ndarray  # (3,) cx, cy, s with translation and log-scale of the motion included
    screen: np.ndarray  # (V, 2) in [0, 1] of the picture, x right, y down


def place(
    head: MeshHead,
    shape_V3: np.ndarray,
    centres_23: np.ndarray,
    motion_54: np.ndarray,
    placement_3: np.ndarray,
) -> PlacedHead:
    """Poses a head by an absolute motion and projects all of it."""
    rot = rotation(*(float(x) for x in motion_54[:3]))
    eye = eye_in_head(rot, motion_54[GAZE])
    deformed = deform(head, shape_V3, centres_23, motion_54[EXPRESSION], eye)
    camera = (deformed - PIVOT_CM) @ rot.T + PIVOT_CM
    placed = move_placement(placement_3, motion_54)
    return PlacedHead(deformed, camera, rot, placed, project(camera, placed))


def move_placement(placement_3: np.ndarray, motion_54: np.ndarray) -> np.ndarray:
    """Placement after translation (head widths) and log-scale of a motion."""
    cx, cy, s = (float(x) for x in placement_3)
    unit = HEAD_WIDTH_CM * s
    return np.array(
        [
            cx + unit * motion_54[3],
            cy - unit * motion_54[4],
            s * math.exp(float(motion_54[6])),
        ]
    )


def project(camera_V3: np.ndarray, placement_3: np.ndarray) -> np.ndarray:
    """Screen positions (V, 2) in [0, 1]; the formula of the module's header."""
    cx, cy, s = (float(x) for x in placement_3)
    d = 1 / (1 - camera_V3[:, 2] / CAMERA_CM)
    x = cx + s * camera_V3[:, 0] * d
    y = cy - s * camera_V3[:, 1] * d
    return np.stack([(x + 1) / 2, (y + 1) / 2], 1).astype(np.float32)


def crop_placement(
    head: MeshHead, shape_V3: np.ndarray, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> np.ndarray:
    """Placement (3,) of the product's crop on a level head: side 1.9 face heights, lifted 0.06.

    Args:
      scale: larger makes the face larger.
      dx, dy: shift of the face in face heights, right and down.
    """
    brow = shape_V3[head.landmarks68[17:27], 1].mean()
    chin = shape_V3[head.landmarks68[8]]
    # the detectors' mesh ends near the hairline, about 0.27 of brow-to-chin above the brows
    top = np.array([[0, brow + 0.27 * (brow - chin[1]), 8.5]], np.float32)
    unit = np.array([0.0, 0.0, 1.0])
    ends = project(np.concatenate([top, chin[None]]).astype(np.float32), unit) * 2 - 1
    height = ends[1, 1] - ends[0, 1]
    s = scale * 2 / (1.9 * height)
    cx = 2 * dx / 1.9
    cy = -s * (ends[:, 1].mean() - 0.06 * height) + 2 * dy / 1.9
    return np.array([cx, cy, s])
