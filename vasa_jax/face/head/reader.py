"""``E_motion``: landmarks of one frame and of the person at rest -> expression weights and gaze.

A fit by optimisation explains one frame with whatever weights reach its landmarks, so directions
that landmarks hardly see (a jaw that opens while ``mouthClose`` shuts the lips) are settled by its
prior. This encoder has seen, on the head model itself, which weights occur together::

    landmarks ──align to the rest face──► pose, placement
        └──undo both──► displacement from the rest face (cm) ──┐
    rest face, relative to the mean head ──────────────────────┼─► MLP ─► expression, eye in head
    yaw and pitch ─────────────────────────────────────────────┘

The rest face is neutral by definition: lips met, eyes open, whatever face the person has. What a
detector gets wrong in the same way in every frame of a person therefore cancels. Pose is removed
by a rigid alignment on the landmarks that expressions move least (``align_head``).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES, GAZE, MOTION_DIM
from vasa_jax.core.types import POSE, Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import (
    INNER_LIPS,
    LIDS,
    LIP_PAIRS,
    OUTER_LIPS,
    OVAL,
    camera_gaze,
    fit_portrait,
    frontal_similarity,
    landmark_head,
)
from vasa_jax.face.head.head import Head

# MediaPipe's topology: what the encoder looks at, besides lips and lids.
# fmt: off
BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
IRISES = tuple(range(468, 478))
LIP_RING = (76, 62, 306, 292, 73, 303, 41, 271, 38, 268, 12, 15, 86, 316, 85, 315, 90, 320, 77, 307)
CHEEKS = (110, 339, 119, 348, 118, 347, 101, 330, 36, 266, 50, 280, 205, 425, 206, 426, 207, 427,
          187, 411, 203, 423, 57, 287, 92, 322, 165, 391)
JAW = (152, 175, 199, 200, 18, 83, 313, 182, 406, 172, 397, 136, 365, 150, 379, 149, 378, 176, 400,
       148, 377)
NOSE = (1, 2, 164, 98, 327, 49, 279, 48, 278, 64, 294, 129, 358, 8, 9, 168)
# fmt: on
STEADY = (33, 133, 263, 362, 168, 6, 197, 195, 5, 4, 10, 151, 127, 356)
SEEN = INNER_LIPS + OUTER_LIPS + LIP_RING + LIDS + IRISES + BROWS + CHEEKS + JAW + NOSE
NUM_ANCHORS = 120
ALIGN_ITERATIONS = 5
STIFF_CM = 0.03  # movement by expressions at which a landmark's weight has halved
OUTPUTS = len(EXPRESSION_NAMES) + 2
REST_SECONDS = 0.4  # of the clip that must at least count as the mouth at rest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionEncoderConfig:
    """Size of the net."""

    width: int = 384
    depth: int = 2  # hidden layers


class MotionEncoder(nn.Module):
    """Features (B, F) of ``features`` -> expression (B, 45), unclipped, and eye in head (B, 2)."""

    cfg: MotionEncoderConfig

    @nn.compact
    def __call__(self, features_BF: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = features_BF
        for i in range(self.cfg.depth):
            h = nn.silu(nn.Dense(self.cfg.width, name=f"hidden_{i}")(h))
        # Weights are nearly linear in what landmarks do, the rest is left to the hidden layers.
        zeros = nn.initializers.zeros_init()
        out = nn.Dense(OUTPUTS, kernel_init=zeros, name="linear")(features_BF)
        out = out + nn.Dense(OUTPUTS, kernel_init=zeros, name="out")(h)
        return out[:, :-2], out[:, -2:]


class Rest(NamedTuple):
    """A person's rest face in the head's own frame."""

    points: Array  # (478, 3) cm


class Anchors(NamedTuple):
    """The landmarks that tell where a head is."""

    index: Array  # (N,) of the 478
    weight: Array  # (N,) sums to one


def anchors(lm_head: Head, trust_L: Array, *, count: int = NUM_ANCHORS) -> Anchors:
    """The ``count`` landmarks that expressions move least, weighted by how little they do.

    The measure is the mean over all expressions of the squared movement at a quarter of the weight;
    the oval counts less, since a detector lets it slide along the cheek with yaw.
    """
    moved = np.square(0.25 * np.asarray(lm_head.expression)).sum(-1)  # (45, L)
    w = 1.0 / (1.0 + moved.mean(0) / STIFF_CM**2)
    w[list(OVAL)] *= 0.35
    w[list(LIDS)] *= 0.5
    w[list(IRISES)] = 0.0
    w = w * np.asarray(trust_L)
    index = np.sort(np.argsort(-w)[:count])
    weight = w[index] / w[index].sum()
    return Anchors(index.astype(np.int32), weight.astype(np.float32))


def align_head(
    points_L3: jax.Array, target_L2: jax.Array, anchor: Anchors
) -> tuple[jax.Array, jax.Array]:
    """Rotation (3, 3) and placement (3,) that put a rigid face onto landmarks.

    ``points_L3`` in cm of the head's frame, ``target_L2`` in [-1, 1] of the crop, L = 478.
    Gauss-Newton on the anchors' weighted squared distance, from the similarity of the frontal face.
    """
    points, target, w = points_L3[anchor.index], target_L2[anchor.index], anchor.weight[:, None]
    pivot = jnp.array(heads.PIVOT_CM)
    start = frontal_similarity(points, target, anchor.weight)
    rot = heads.rotation(0.0 * start[0], 0.0 * start[0], start[0])
    placement = start[1:]

    def body(carry: tuple[jax.Array, jax.Array], _: None):
        rot, placement = carry
        s = placement[2]
        arm = (points - pivot) @ rot.T
        v = arm + pivot
        d = 1.0 / (1.0 - v[:, 2] / heads.CAMERA_CM)
        # Image (in cm) and how it changes with the point: screen = d v, d' = d^2 / CAMERA_CM.
        screen = d[:, None] * v[:, :2] * jnp.array([1.0, -1.0])
        bend = screen * (d / heads.CAMERA_CM)[:, None]
        x, y, z = arm.T
        o = jnp.zeros_like(x)
        # Movement of the point for small turns about x, y, z.
        turns = jnp.stack([jnp.stack([o, -z, y]), jnp.stack([z, o, -x]), jnp.stack([-y, x, o])])
        image = jnp.stack([turns[:, 0] * d, -turns[:, 1] * d], -1) + turns[:, 2, :, None] * bend
        shift = jnp.broadcast_to(jnp.eye(2)[:, None], (2, len(x), 2))
        jac = jnp.concatenate([image, shift, screen[None]])  # (6, N, 2)
        r = (target - placement[:2]) / s - screen
        normal = jnp.einsum("inc,jnc,nc->ij", jac, jac, w * jnp.ones(2)) + 1e-6 * jnp.eye(6)
        step = jnp.linalg.solve(normal, jnp.einsum("inc,nc->i", jac, w * r))
        # The derivative of the shift is that of placement / s, of size that of log s.
        placement = jnp.concatenate(
            [placement[:2] + s * step[3:5], s[None] * jnp.exp(jnp.clip(step[5:], -0.5, 0.5))]
        )
        return (_small_turn(jnp.clip(step[:3], -0.4, 0.4)) @ rot, placement), None

    (rot, placement), _ = jax.lax.scan(body, (rot, placement), None, length=ALIGN_ITERATIONS)
    return rot, placement


def _small_turn(angle_3: jax.Array) -> jax.Array:
    """Rotation (3, 3) about the axis and by the length (rad) of a vector (Rodrigues)."""
    x, y, z = angle_3
    o = jnp.zeros_like(x)
    k = jnp.stack([jnp.stack([o, -z, y]), jnp.stack([z, o, -x]), jnp.stack([-y, x, o])])
    t = jnp.sqrt(jnp.sum(angle_3 * angle_3) + 1e-12)
    return jnp.eye(3) + jnp.sin(t) / t * k + (1 - jnp.cos(t)) / (t * t) * (k @ k)


def angles(rot_33: jax.Array) -> jax.Array:
    """Yaw, pitch and roll (3,) in rad of a rotation, the inverse of ``head.rotation``."""
    turned = heads.rotation(jnp.array(0.0), jnp.array(0.3), jnp.array(0.0))
    sign = jnp.sign(turned[1, 2])  # of the pitch's sine in the matrix
    yaw = jnp.arctan2(rot_33[0, 2], rot_33[2, 2])
    pitch = jnp.arcsin(jnp.clip(sign * rot_33[1, 2], -1.0, 1.0))
    back = heads.rotation(yaw, pitch, 0.0 * yaw).T @ rot_33  # the roll alone
    return jnp.stack([yaw, pitch, jnp.arctan2(back[0, 1], back[0, 0])])


def to_head_frame(
    points_L3: jax.Array, target_L2: jax.Array, rot_33: jax.Array, placement_3: jax.Array
) -> jax.Array:
    """Landmarks (L, 2) in [-1, 1] -> (L, 3) cm in the head's frame, depths those of the points."""
    pivot = jnp.array(heads.PIVOT_CM)
    z = ((points_L3 - pivot) @ rot_33.T + pivot)[:, 2]
    scale = (1.0 - z / heads.CAMERA_CM) / placement_3[2]
    x = (target_L2[:, 0] - placement_3[0]) * scale
    y = -(target_L2[:, 1] - placement_3[1]) * scale
    return (jnp.stack([x, y, z], -1) - pivot) @ rot_33 + pivot


def rest_face(points_L3: jax.Array, target_L2: jax.Array, anchor: Anchors) -> Rest:
    """The rest face: landmarks as seen at rest (L, 2), with the depths of a model of the person."""
    rot, placement = align_head(points_L3, target_L2, anchor)
    return Rest(to_head_frame(points_L3, target_L2, rot, placement))


def observe(
    rest: Rest, mean_L3: jax.Array, target_L2: jax.Array, anchor: Anchors
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the net sees of one frame: features (F,); and the head's pose (3,) and placement (3,).

    ``mean_L3`` is the mean head's landmarks in cm. Features: the displacement of the seen
    landmarks from rest in the head's own upright plane, in units of 0.25 cm; the rest face
    relative to the mean head, centred and in units of 0.5 cm; yaw and pitch in units of 0.2 rad.
    """
    rot, placement = align_head(rest.points, target_L2, anchor)
    pose = angles(rot)
    seen = jnp.array(SEEN)
    moved = (to_head_frame(rest.points, target_L2, rot, placement) - rest.points)[seen, :2]
    # Landmarks in a picture have no scale in cm; the mean head gives one.
    w, at = anchor.weight[:, None], anchor.index
    own = rest.points[:, :2] - (w * rest.points[at, :2]).sum(0)
    mean = mean_L3[:, :2] - (w * mean_L3[at, :2]).sum(0)
    unit = jnp.sqrt((w * jnp.square(mean[at])).sum() / (w * jnp.square(own[at])).sum())
    shape = (unit * own - mean)[seen]
    parts = (moved.ravel() * unit / 0.25, shape.ravel() / 0.5, pose[:2] / 0.2)
    return jnp.concatenate(parts), pose, placement


class MotionReader:
    """A trained encoder with its head: landmarks of a clip in, motion out."""

    def __init__(self, cfg: MotionEncoderConfig, params: Any, head: Head):
        self.cfg, self.params, self.head = cfg, params, head
        lm_head = landmark_head(head)
        self._lm_head = jax.tree.map(jnp.asarray, lm_head)
        self._anchor = anchors(lm_head, head.landmark_trust)

    def rest(self, landmarks_L2: np.ndarray) -> Rest:
        """The rest face of a person from typical landmarks at rest, (478, 2) in [0, 1]."""
        found = fit_portrait(self.head, landmarks_L2)
        points, _ = heads.person(self._lm_head, jnp.asarray(found.identity))
        target = jnp.asarray(landmarks_L2[:, :2], jnp.float32) * 2 - 1
        return jax.jit(rest_face)(points, target, self._anchor)

    def __call__(self, landmarks_TL2: np.ndarray, rest: Rest) -> np.ndarray:
        """Motion (T, 54) of landmarks (T, 478, 2 or 3) in [0, 1] of one crop.

        Angles are absolute, translation (head widths) and log-scale relative to the clip's median,
        gaze in the camera's frame, expression in [0, 1] relative to the rest face.
        """
        target = jnp.asarray(landmarks_TL2[..., :2], jnp.float32) * 2 - 1
        expression, eye, pose, placement = (
            np.asarray(x)
            for x in _read(self.cfg, self.params, rest, self._lm_head.base, target, self._anchor)
        )
        motion = np.zeros((len(target), MOTION_DIM), np.float32)
        motion[:, POSE] = heads.motion_between(np.median(placement, axis=0), placement)
        motion[:, :3] = pose
        motion[:, EXPRESSION] = expression.clip(0.0, 1.0)
        limit = np.array([heads.MAX_EYE_YAW, heads.MAX_EYE_PITCH], np.float32)
        rot = heads.rotation(*jnp.asarray(pose).T)
        motion[:, GAZE] = jax.vmap(camera_gaze)(rot, jnp.asarray(eye.clip(-limit, limit)))
        return motion


@functools.partial(jax.jit, static_argnums=0)
def _read(cfg: MotionEncoderConfig, params: Any, rest: Rest, mean_L3, target_TL2, anchor: Anchors):
    see = functools.partial(observe, rest, mean_L3, anchor=anchor)
    features, pose, placement = jax.lax.map(
        lambda target: see(target_L2=target), target_TL2, batch_size=16
    )
    expression, eye = MotionEncoder(cfg).apply({"params": params}, features)  # type: ignore[misc]
    return expression, eye, pose, placement


def inner_gap(landmarks_TL: np.ndarray) -> np.ndarray:
    """Mean distance (T,) of the pairs of inner lip points, in the landmarks' own units."""
    upper, lower = (landmarks_TL[:, [pair[i] for pair in LIP_PAIRS], :2] for i in (0, 1))
    return np.linalg.norm(upper - lower, axis=-1).mean(-1)


def typical_rest(landmarks_TL2: np.ndarray, still_T: np.ndarray | None = None) -> np.ndarray:
    """Landmarks (478, 2) of a clip's rest face: the median of frames with lips met and eyes open.

    ``still_T`` marks frames in which nobody speaks; they are preferred when there are enough. The
    frames are brought onto the first one by a similarity first, so that a moving head does not
    blur them.
    """
    xy = np.asarray(landmarks_TL2, np.float64)[..., :2]
    gap = inner_gap(xy)
    # Lids: height over width of both eyes.
    lids = [np.linalg.norm(xy[:, a] - xy[:, b], axis=-1) for a, b in ((159, 145), (386, 374))]
    width = [np.linalg.norm(xy[:, a] - xy[:, b], axis=-1) for a, b in ((33, 133), (263, 362))]
    opening = np.sum(lids, 0) / np.maximum(np.sum(width, 0), 1e-9)
    eligible = opening > 0.8 * np.median(opening)
    least = max(1, min(int(REST_SECONDS * 25), eligible.sum()))
    if still_T is not None and (eligible & still_T).sum() >= least:
        eligible &= still_T
    order = np.flatnonzero(eligible)[np.argsort(gap[eligible], kind="stable")]
    chosen = xy[order[: max(least, len(order) // 4)]]
    base = chosen[0]
    moved = [_similarity(frame, base, list(STEADY)) for frame in chosen]
    return np.median(moved, axis=0).astype(np.float32)


def _similarity(points_L2: np.ndarray, onto_L2: np.ndarray, rows: list[int]) -> np.ndarray:
    """Points turned, scaled and shifted so that ``rows`` fit those of ``onto_L2`` best."""
    a, b = (p @ np.array([1.0, 1j]) for p in (points_L2, onto_L2))
    p, q = a[rows] - a[rows].mean(), b[rows] - b[rows].mean()
    turned = (a - a[rows].mean()) * (np.vdot(p, q) / np.vdot(p, p)) + b[rows].mean()
    return np.stack([turned.real, turned.imag], -1)
