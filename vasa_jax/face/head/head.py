"""The reduced morphable head: landmarks and motion vectors become a placed triangle mesh.

A head is a pytree of arrays (``Head``), a few thousand triangles whose rows are fitted from a
larger morphable model by ``tools/make_head.py`` and travel inside a release. Model space is in cm,
x towards the right edge of the picture, y up, z towards the viewer.

Camera: weak perspective with a fixed relative depth, as portraits have no known focal length::

    d = 1 / (1 - z / CAMERA_CM)        X = cx + s x d        Y = cy - s y d

with X, Y in [-1, 1] of the square crop, ``placement = (cx, cy, s)`` and s in crop units per cm.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES, GAZE, MOTION_DIM
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import HEAD_WIDTH_CM, POSE, Array

CAMERA_CM = 70.0  # typical portrait distance; perspective of the nose against the ears
PIVOT_CM = (0.0, -7.0, -1.0)  # heads turn about the top of the neck, not about their centre
MAX_EYE_YAW, MAX_EYE_PITCH = 0.55, 0.42  # rad, eye in head

# Groups of triangles, as the renderer sees them.
GROUPS = (
    "face", "scalp_neck", "mouth_socket", "eye_socket", "gums_tongue", "teeth_upper",
    "teeth_lower", "eyeball_L", "eyeball_R",
)  # fmt: skip

# The resting face of a portrait is kept where it is part of who is shown, and given up where
# speech needs the full range: driver weight = keep * portrait's weight + commanded weight.
_KEEP = {"brow": 1.0, "eyeSquint": 1.0, "eyeWide": 1.0, "cheek": 1.0, "nose": 1.0}
BLINK_KEPT = 0.8  # of how far the portrait's own lids are down
_KEEP_MOUTH = {"mouthSmile": 0.5, "mouthFrown": 0.5, "mouthLeft": 0.5, "mouthRight": 0.5}


def resting_share() -> np.ndarray:
    """Share (45,) of the portrait's own expression that stays under any commanded expression."""
    share = np.zeros(len(EXPRESSION_NAMES), np.float32)
    for i, name in enumerate(EXPRESSION_NAMES):
        for prefix, value in (_KEEP | _KEEP_MOUTH).items():
            if name.startswith(prefix):
                share[i] = value
    return share


class Head(NamedTuple):
    """V vertices, F triangles, I identity modes, 45 expressions, 8 lid movements, 478 landmarks."""

    base: Array  # (V, 3) cm
    identity: Array  # (I, V, 3) cm per sigma
    expression: Array  # (45, V, 3) cm at weight 1, order of EXPRESSION_NAMES
    look: Array  # (8, V, 3) lids following the eye: up L R, down L R, in L R, out L R
    triangles: Array  # (F, 3) int32
    group: Array  # (F,) int32 into GROUPS
    rigid: Array  # (V,) 1 on the head, falling to 0 down the neck
    eye: Array  # (V,) 0 not an eyeball, 1 left, 2 right
    eye_center: Array  # (2, 3) cm, left and right
    eye_center_identity: Array  # (I, 2, 3)
    iris_angle: Array  # (V,) rad from the eye's axis, large elsewhere
    landmark_vertices: Array  # (478, 6) int32
    landmark_weights: Array  # (478, 6) sums to one
    landmark_trust: Array  # (478,) 0 where the mesh has no counterpart
    lids: Array  # (2, 2, 2) int32 vertices: left and right eye, two places, upper and lower lid
    lids_shut: Array  # (2, 2) cm between the two vertices when the lids rest on each other


BLINKS = (EXPRESSION_NAMES.index("eyeBlink_L"), EXPRESSION_NAMES.index("eyeBlink_R"))
LIDS_SHUT_CM = -0.01  # shut lids rest on each other
LID_TRAVEL = (0.5, 1.8)  # limits of the scale of a blink; beyond them the skin would tear


def load_head(path: str | Path) -> Head:
    """Reads the .npz written by ``tools/make_head.py``; integer arrays keep their type.

    Raises:
      UserError: there is no such file, or it holds something else; for the whole head that it
        is made of, how to reduce it.
    """
    try:
        with np.load(path) as z:
            whole = {"neutral", "tris", "group_names"} <= set(z.files)
            if not whole:
                return head_from_arrays({k: z[k] for k in z.files})
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"no head in {path}: make one with tools/make_head.py") from error
    raise UserError(
        f"{path} is ICT-FaceKit's whole head, which must be reduced first: "
        f"python tools/make_head.py {path} head.npz --stills STILLS, with the folder STILLS of "
        f"python -m vasa_jax.synth.person.picture stills STILLS --head {path}"
    )


def head_from_arrays(arrays: dict[str, np.ndarray]) -> Head:
    """Builds a Head from named arrays (a release's ``head`` tree); floats become float32."""

    def typed(value: np.ndarray) -> np.ndarray:
        value = np.asarray(value)
        return value.astype(np.int32 if value.dtype.kind in "iu" else np.float32)

    return Head(**{k: typed(arrays[k]) for k in Head._fields})


def rotation(yaw: jax.Array, pitch: jax.Array, roll: jax.Array) -> jax.Array:
    """Rotation matrices (..., 3, 3) for the signs of ``core/types.py``: R = Ry Rx Rz."""
    cy, sy, cp, sp = jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch), jnp.sin(pitch)
    cr, sr = jnp.cos(roll), jnp.sin(roll)
    o, z = jnp.ones_like(cy), jnp.zeros_like(cy)

    def matrix(*rows: jax.Array) -> jax.Array:
        return jnp.stack(rows, -1).reshape(*cy.shape, 3, 3)

    ry = matrix(cy, z, sy, z, o, z, -sy, z, cy)
    rx = matrix(o, z, z, z, cp, sp, z, -sp, cp)
    rz = matrix(cr, sr, z, -sr, cr, z, z, z, o)
    return ry @ rx @ rz


def eye_in_head(rot_33: jax.Array, gaze_2: jax.Array) -> jax.Array:
    """Yaw and pitch (2,) rad of the eyes in the head for a gaze in the camera's frame, limited."""
    y, p = gaze_2[0], gaze_2[1]
    ray = jnp.stack([jnp.sin(y) * jnp.cos(p), jnp.sin(p), jnp.cos(y) * jnp.cos(p)])
    x, u, f = rot_33.T @ ray
    yaw, pitch = jnp.arctan2(x, f), jnp.arctan2(u, jnp.hypot(x, f))
    limit = jnp.array([MAX_EYE_YAW, MAX_EYE_PITCH])
    return jnp.clip(jnp.stack([yaw, pitch]), -limit, limit)


def person(head: Head, identity_I: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Neutral vertices (V, 3) and eye centres (2, 3) of one identity."""
    vertices = head.base + jnp.tensordot(identity_I, head.identity, 1)
    centers = head.eye_center + jnp.tensordot(identity_I, head.eye_center_identity, 1)
    return vertices, centers


def deform(
    head: Head,
    vertices_V3: jax.Array,
    centers_23: jax.Array,
    expression_E: jax.Array,
    eye_2: jax.Array,
) -> jax.Array:
    """Applies expression weights (45,) and eye rotation (2,) rad, in the head's own frame."""
    yaw, pitch = eye_2[0], eye_2[1]
    relu = jax.nn.relu
    up, down = relu(pitch) / 0.5, relu(-pitch) / 0.5
    # The left eye (towards +x) looks outwards for positive yaw, the right one inwards.
    look = jnp.stack(
        [up, up, down, down, relu(-yaw) / 0.6, relu(yaw) / 0.6, relu(yaw) / 0.6, relu(-yaw) / 0.6]
    )
    expression_E = jnp.asarray(expression_E)
    blink = jnp.clip(expression_E[jnp.asarray(BLINKS)], 0.0, 1.0)
    others = expression_E.at[jnp.asarray(BLINKS)].set(0.0)
    v = vertices_V3 + jnp.tensordot(others, head.expression, 1)
    v = v + jnp.tensordot(look, head.look, 1)
    v = v + close_lids(head, v, blink)
    eye_rot = rotation(yaw, pitch, jnp.zeros_like(yaw))
    side = jnp.clip(head.eye.astype(jnp.int32) - 1, 0, 1)
    center, b = centers_23[side], blink[side][:, None]
    q = (v - center) @ eye_rot.T
    # The cornea bulges; under a closed lid it would poke through, so it is pulled in with blink.
    length = jnp.linalg.norm(q, axis=-1, keepdims=True)
    limit = 1.47 - 0.10 * b
    q = q * jnp.where(
        length > limit, (limit + (length - limit) * (1 - 0.9 * b)) / jnp.maximum(length, 1e-6), 1.0
    )
    ball = q + center - jnp.concatenate([jnp.zeros_like(b), jnp.zeros_like(b), 0.03 + 0.05 * b], -1)
    return jnp.where((head.eye > 0)[:, None], ball, v)


def close_lids(head: Head, open_V3: jax.Array, blink_2: jax.Array) -> jax.Array:
    """Movement (V, 3) of lids that are shut by the shares (2,) of an otherwise finished face.

    The blink shapes of a head model close the lids of its mean person; on others they leave a
    slit, or go too far, and so they do with raised brows or an upward look. Here they are scaled
    between two places of each lid such that weight 1 lets them meet, whoever it is.
    """
    index = jnp.asarray(head.lids)
    moved = jnp.zeros_like(open_V3)
    for side, i in enumerate(BLINKS):
        shape = jnp.asarray(head.expression)[i]
        upper, lower = index[side, :, 0], index[side, :, 1]
        gap = open_V3[upper, 1] - open_V3[lower, 1]
        travel = shape[lower, 1] - shape[upper, 1]  # by which weight 1 brings the lids together
        gap = gap - jnp.asarray(head.lids_shut)[side]
        times = jnp.clip(gap / jnp.maximum(travel, 0.05), *LID_TRAVEL)
        x = jnp.asarray(head.base)[:, 0]
        across = (x - x[upper[0]]) / (x[upper[1]] - x[upper[0]])
        times = times[0] + (times[1] - times[0]) * jnp.clip(across, 0.0, 1.0)
        moved = moved + blink_2[side] * times[:, None] * shape
    return moved


def place(vertices_V3: jax.Array, rot_33: jax.Array, placement_3: jax.Array) -> jax.Array:
    """Rotates about the pivot and projects: (V, 3) with X, Y in crop units and depth in cm."""
    pivot = jnp.array(PIVOT_CM)
    v = (vertices_V3 - pivot) @ rot_33.T + pivot
    d = 1.0 / (1.0 - v[:, 2:] / CAMERA_CM)
    cx, cy, s = placement_3
    return jnp.concatenate([cx + s * v[:, :1] * d, cy - s * v[:, 1:2] * d, v[:, 2:]], -1)


class Pose(NamedTuple):
    """Where a head is and what it does, absolute."""

    rotation: Array  # (3, 3)
    placement: Array  # (3,)
    expression: Array  # (45,)
    gaze: Array  # (2,) rad, camera frame


def absolute_pose(motion_54: jax.Array, placement_3: jax.Array) -> Pose:
    """The pose of an absolute motion (a fitted picture), translation and log-scale included."""
    rot = rotation(motion_54[0], motion_54[1], motion_54[2])
    placed = move_placement(placement_3, motion_54)
    return Pose(rot, placed, motion_54[EXPRESSION], motion_54[GAZE])


def move_placement(placement_3: jax.Array, motion_54: jax.Array) -> jax.Array:
    """Placement after translation (head widths) and log-scale of a motion."""
    unit = HEAD_WIDTH_CM * placement_3[2]
    return jnp.stack(
        [
            placement_3[0] + unit * motion_54[3],
            placement_3[1] - unit * motion_54[4],
            placement_3[2] * jnp.exp(motion_54[6]),
        ]
    )


def motion_between(own_3: np.ndarray, placement_T3: np.ndarray) -> np.ndarray:
    """Translation (head widths) and log-scale that lead from a placement to others.

    The inverse of ``move_placement``: (T, 7), the pose of motions whose angles are zero.
    """
    pose = np.zeros((len(placement_T3), POSE.stop - POSE.start), np.float32)
    unit = HEAD_WIDTH_CM * own_3[2]
    pose[:, 3] = (placement_T3[:, 0] - own_3[0]) / unit
    pose[:, 4] = -(placement_T3[:, 1] - own_3[1]) / unit
    pose[:, 6] = np.log(np.maximum(placement_T3[:, 2], 1e-6) / own_3[2])
    return pose


def drive(portrait_motion_54: jax.Array, placement_3: jax.Array, motion_54: jax.Array) -> Pose:
    """Adds a driving motion to a portrait; ``core/types.py`` says what is relative to it."""
    pose = portrait_motion_54[POSE] + motion_54[POSE]
    rot = rotation(pose[0], pose[1], pose[2])
    placed = move_placement(placement_3, motion_54)
    own, asked = portrait_motion_54[EXPRESSION], motion_54[EXPRESSION]
    expression = jnp.asarray(resting_share()) * own + asked
    for i in BLINKS:  # narrow eyes stay narrow and still close fully
        closed = BLINK_KEPT * own[i]
        expression = expression.at[i].set(closed + (1 - closed) * asked[i])
    return Pose(rot, placed, jnp.clip(expression, 0.0, 1.15), motion_54[GAZE])


def driving(
    portrait_motion_54: jax.Array, placement_3: jax.Array, motion_54: jax.Array, at_3: jax.Array
) -> jax.Array:
    """The driving motion (54,) that ``drive`` turns into an absolute one at a placement.

    A weight below what stays of the portrait's own comes out negative: ``drive`` takes it off.
    """
    own, seen = portrait_motion_54[EXPRESSION], motion_54[EXPRESSION]
    expression = seen - jnp.asarray(resting_share()) * own
    for i in BLINKS:
        closed = BLINK_KEPT * own[i]
        expression = expression.at[i].set((seen[i] - closed) / (1 - closed))
    unit = HEAD_WIDTH_CM * placement_3[2]
    x, y, scale = move_placement(at_3, motion_54)
    place = jnp.stack([
        (x - placement_3[0]) / unit, (placement_3[1] - y) / unit,
        motion_54[5] - portrait_motion_54[5], jnp.log(scale / placement_3[2]),
    ])  # fmt: skip
    turn = motion_54[:3] - portrait_motion_54[:3]
    return jnp.concatenate([turn, place, motion_54[GAZE], expression])


def place_head(head: Head, neutral_V3: jax.Array, centers_23: jax.Array, pose: Pose) -> jax.Array:
    """One person (``person``) in one pose: placed vertices (V, 3), see ``place``."""
    eye = eye_in_head(pose.rotation, pose.gaze)
    v = deform(head, neutral_V3, centers_23, pose.expression, eye)
    return place(v, pose.rotation, pose.placement)


def place_fit(
    head: Head, identity_I: jax.Array, motion_54: jax.Array, placement_3: jax.Array
) -> jax.Array:
    """Placed vertices (V, 3) of a fitted picture: its person in its own absolute pose."""
    neutral, centers = person(head, identity_I)
    return place_head(head, neutral, centers, absolute_pose(motion_54, placement_3))


def landmarks(head: Head, placed_V3: jax.Array) -> jax.Array:
    """The 478 detector landmarks (478, 3) of a placed head."""
    corners = placed_V3[head.landmark_vertices]
    return (corners * head.landmark_weights[..., None]).sum(1)


def mean_landmarks(head: Head, motion_54: jax.Array) -> jax.Array:
    """The mean head's landmarks (478, 3) under one driving motion, as in a picture of side 1.

    The detector's convention: x right, y down, depth away from the viewer, equal units.
    """
    neutral, centers = person(head, jnp.zeros(head.identity.shape[0]))
    pose = drive(jnp.zeros(MOTION_DIM), jnp.asarray([0.0, 0.0, 0.06]), motion_54)
    placed = landmarks(head, place_head(head, neutral, centers, pose))
    return placed * jnp.array([0.5, 0.5, -0.03]) + jnp.array([0.5, 0.5, 0.0])
