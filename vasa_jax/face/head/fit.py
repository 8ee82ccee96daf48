"""From detected landmarks to a person: identity, pose, expression and gaze of the reduced head.

A damped Gauss-Newton on 2D landmark error with Gaussian priors (pose and identity as in classical
morphable-model fitting), entirely in JAX: one compiled program for a portrait, one vectorised over
frames for a clip. This is ``E_pose`` of the lite model ("frozen, fitted from landmarks",
design section 4) and the identity part of its appearance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES, GAZE, MOTION_DIM
from vasa_jax.core.types import POSE, Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Head
from vasa_jax.runtime.programs import Program

NOISE = 0.010  # expected landmark error in crop units ([-1, 1]); the detector's, measured
ITERATIONS = 14
LIPS_MEET_CM = 0.02  # how far identity may part the lips of a resting face

# MediaPipe's topology (468 mesh points): which points carry which feature.
# fmt: off
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311,
              310, 415)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269,
              270, 409)
LIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
        263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)
LID_PAIRS = (((385, 380), (387, 373)), ((160, 144), (158, 153)))  # left eye, right; upper, lower
LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))  # upper, lower inner lip
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
# fmt: on


SPREAD_CM = 0.08  # standard deviation of what the head model does not know of a face
SPREAD_WIDTHS_CM = (0.5, 2.0)  # over which it goes together
_JAW = EXPRESSION_NAMES.index("jawOpen")


def _spread_noise() -> np.ndarray:
    """Error (468,) in cm of a landmark beyond its part in the fit, for ``residual_shape``."""
    noise = np.full(468, 0.15, np.float32)
    noise[list(OVAL)] = 0.5  # slides along the cheek
    noise[list(LIDS + INNER_LIPS + OUTER_LIPS)] = 0.05
    return noise


SPREAD_OVER = _spread_noise()


class FaceFit(NamedTuple):
    """A portrait as the head model sees it, in the coordinates of its square crop."""

    identity: Array  # (I,) in sigmas
    motion: Array  # (54,) absolute; translation and log-scale are zero, they live in placement
    placement: Array  # (3,) cx, cy in [-1, 1] and crop units per cm
    error: Array  # () mean landmark distance in crop units
    shape: Array | None = None  # (V, 3) cm, of the neutral face beyond its identity


def landmark_weights() -> np.ndarray:
    """Weight (478,) of each landmark: lips and lids are what speech and blinks live on."""
    w = np.ones(478, np.float32)
    w[list(OVAL)] = 0.35  # the oval slides along the cheek with yaw
    w[list(OUTER_LIPS)] = 2.0
    w[list(INNER_LIPS)] = 3.0
    w[list(LIDS)] = 2.0
    w[468:] = 1.5
    return w


def landmark_head(head: Head) -> Head:
    """The head reduced to its 478 landmarks: every row of the model is linear in the vertices."""
    index, weight = np.asarray(head.landmark_vertices), np.asarray(head.landmark_weights)

    def combine(rows: Array) -> np.ndarray:  # (..., V, 3) -> (..., 478, 3)
        return np.einsum("...lkc,lk->...lc", np.asarray(rows)[..., index, :], weight)

    strongest = index[np.arange(478), weight.argmax(1)]
    return head._replace(
        base=combine(head.base), identity=combine(head.identity),
        expression=combine(head.expression), look=combine(head.look),
        eye=np.asarray(head.eye)[strongest], rigid=np.asarray(head.rigid)[strongest],
        iris_angle=np.asarray(head.iris_angle)[strongest],
        lids=np.array(LID_PAIRS, np.int32), lids_shut=_lids_shut(head, combine),
    )  # fmt: skip


def _shut_vertices(head: Head) -> jax.Array:
    """The mean person with shut eyes, (V, 3)."""
    shut = jnp.zeros(len(EXPRESSION_NAMES)).at[jnp.array(heads.BLINKS)].set(1.0)
    return heads.deform(
        head, jnp.asarray(head.base), jnp.asarray(head.eye_center), shut, jnp.zeros(2)
    )


_shut = Program(_shut_vertices)


def _lids_shut(head: Head, combine: Callable[[Array], np.ndarray]) -> np.ndarray:
    """Distances (2, 2) that a detector sees between the shut lids of the mean person, in cm."""
    y = combine(np.asarray(_shut(head)))[:, 1]
    upper, lower = np.moveaxis(np.array(LID_PAIRS), -1, 0)
    return (y[upper] - y[lower]).astype(np.float32)


def _expression_prior() -> np.ndarray:
    """Inverse sigma (45,) of expression weights; what landmarks see badly is held tighter."""
    p = np.full(len(EXPRESSION_NAMES), 3.0, np.float32)
    for i, name in enumerate(EXPRESSION_NAMES):
        if name.startswith(("jawOpen", "eyeBlink", "mouthPucker", "mouthFunnel", "mouthSmile")):
            p[i] = 2.0
        elif name.startswith(("cheek", "nose", "jaw", "mouthShrug", "mouthLeft", "mouthRight")):
            p[i] = 6.0
    return p


def _project(lm_head: Head, identity, pose, placement, expression, eye):
    vertices, centers = heads.person(lm_head, identity)
    rot = heads.rotation(pose[0], pose[1], pose[2])
    v = heads.deform(lm_head, vertices, centers, expression, eye)
    return heads.place(v, rot, placement)[:, :2]


def _solve(residual, x0: jax.Array, iterations: int) -> jax.Array:
    """Levenberg-Marquardt with a fixed number of steps; a step that does not help is not taken."""

    def body(carry, _):
        x, cost, damping = carry
        r = residual(x)
        jac = jax.jacfwd(residual)(x)
        a, g = jac.T @ jac, jac.T @ r
        step = _solve_positive(a + damping * jnp.diag(jnp.diag(a)), g)
        new = x - step
        new_cost = jnp.sum(residual(new) ** 2)
        better = new_cost < cost
        x = jnp.where(better, new, x)
        damping = jnp.clip(jnp.where(better, damping * 0.3, damping * 8.0), 1e-6, 1e3)
        return (x, jnp.where(better, new_cost, cost), damping), None

    cost = jnp.sum(residual(x0) ** 2)
    (x, _, _), _ = jax.lax.scan(body, (x0, cost, jnp.float32(1e-2)), None, length=iterations)
    return x


def _solve_positive(a_NN: jax.Array, b_N: jax.Array) -> jax.Array:
    """x of ``a x = b`` for a symmetric positive definite ``a``, by elimination in place.

    No pivots are needed for such a matrix. LAPACK's would be a call out of the program, which a
    process that loads it compiled (``runtime/programs.py``) has not prepared for.
    """

    def body(k, table):
        row = jax.lax.dynamic_index_in_dim(table, k, 0, keepdims=False)
        row = row / jax.lax.dynamic_index_in_dim(row, k, 0, keepdims=False)
        column = jax.lax.dynamic_index_in_dim(table, k, 1, keepdims=True)
        below = table - column * row[None]
        return jax.lax.dynamic_update_index_in_dim(below, row, k, 0)

    table = jnp.concatenate([a_NN, b_N[:, None]], axis=1)
    return jax.lax.fori_loop(0, len(b_N), body, table)[:, -1]


def _bounds(expression: jax.Array) -> jax.Array:
    return 25.0 * jnp.concatenate([jnp.minimum(expression, 0.0), jnp.maximum(expression - 1.0, 0)])


def frontal_similarity(
    points_L3: jax.Array, target_L2: jax.Array, weight_L: jax.Array
) -> jax.Array:
    """Roll (rad), cx, cy, s that put a face seen from the front onto landmarks, in closed form.

    ``points_L3`` in cm of the head's frame, y up; ``target_L2`` in [-1, 1] of the crop, y down.
    Least weighted squares over turn, scale and shift in the plane.
    """
    p = points_L3[:, :2] * jnp.array([1.0, -1.0])
    w = weight_L[:, None] / weight_L.sum()
    mp, mt = (w * p).sum(0), (w * target_L2).sum(0)
    a, b = p - mp, target_L2 - mt
    re = (w * a * b).sum()
    im = (w[:, 0] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum()
    norm = (w * a * a).sum()
    s, roll = jnp.hypot(re, im) / norm, jnp.arctan2(im, re)
    c, n = jnp.cos(roll), jnp.sin(roll)
    turned = jnp.stack([c * mp[0] - n * mp[1], n * mp[0] + c * mp[1]])
    t = mt - s * turned
    return jnp.stack([roll, t[0], t[1], s])


@functools.partial(Program, static=("iterations",))
def _fit_portrait(lm_head: Head, target_L2, weight_L, iterations: int = ITERATIONS):
    num_identity = lm_head.identity.shape[0]
    prior = jnp.asarray(_expression_prior())
    k = num_identity

    def unpack(x):
        return x[:3], x[3:6] * jnp.array([1, 1, 0.1]), x[6 : 6 + k], x[6 + k : 6 + k + 45], x[-2:]

    upper, lower = (jnp.array([pair[i] for pair in LIP_PAIRS]) for i in (0, 1))

    def residual(x):
        pose, placement, identity, expression, eye = unpack(x)
        # Lips at rest meet in everybody: a parted mouth is an expression, never who one is. Else
        # a portrait that smiles with its teeth could not close its lips on p, b, m.
        offset = jnp.tensordot(identity, lm_head.identity[..., 1], 1)
        parted = (offset[upper] - offset[lower]) / LIPS_MEET_CM
        gap = (_project(lm_head, identity, pose, placement, expression, eye) - target_L2) / NOISE
        return jnp.concatenate(
            [
                (gap * jnp.sqrt(weight_L)[:, None]).ravel() / 3.0, identity, expression * prior,
                _bounds(expression), pose * 0.5, eye * 1.5, parted,
            ]
        )  # fmt: skip

    def rigid_only(y):
        return residual(jnp.concatenate([y, jnp.zeros(k + 45 + 2)]))[: 2 * 478]

    s = frontal_similarity(jnp.asarray(lm_head.base), target_L2, weight_L)
    y0 = jnp.stack([jnp.float32(0), jnp.float32(0), s[0], s[1], s[2], s[3] * 10])
    y = _solve(rigid_only, y0, 8)
    x = _solve(residual, jnp.concatenate([y, jnp.zeros(k + 45 + 2)]), iterations)
    pose, placement, identity, expression, eye = unpack(x)
    gap = _project(lm_head, identity, pose, placement, expression, eye) - target_L2
    error = jnp.sum(jnp.linalg.norm(gap, axis=-1) * weight_L) / weight_L.sum()
    gaze = camera_gaze(heads.rotation(pose[0], pose[1], pose[2]), eye)
    return pose, placement, identity, jnp.clip(expression, 0, 1), gaze, error


@functools.partial(jax.jit, static_argnames="iterations")
def _fit_frames(lm_head: Head, identity, start_y, target_TL2, weight_L, iterations: int = 8):
    prior = jnp.asarray(_expression_prior())

    def one(target_L2):
        def residual(x):
            pose, placement = x[:3], x[3:6] * jnp.array([1, 1, 0.1])
            expression, eye = x[6:51], x[51:53]
            p = _project(lm_head, identity, pose, placement, expression, eye)
            gap = (p - target_L2) / NOISE * jnp.sqrt(weight_L)[:, None]
            return jnp.concatenate(
                [gap.ravel() / 3.0, expression * prior, _bounds(expression), eye * 1.5]
            )

        s = frontal_similarity(jnp.asarray(lm_head.base), target_L2, weight_L)
        y0 = jnp.stack([start_y[0], start_y[1], s[0], s[1], s[2], s[3] * 10])
        x = _solve(residual, jnp.concatenate([y0, jnp.zeros(47)]), iterations)
        return x[:3], x[3:6] * jnp.array([1, 1, 0.1]), jnp.clip(x[6:51], 0, 1), x[51:53]

    return jax.lax.map(one, target_TL2, batch_size=16)


def camera_gaze(rot_33: Array, eye_2: Array) -> jax.Array:
    """Gaze (2,) in the camera's frame of an eye turned by (yaw, pitch) in the head."""
    y, p = eye_2[0], eye_2[1]
    ray = rot_33 @ jnp.stack([jnp.sin(y) * jnp.cos(p), jnp.sin(p), jnp.cos(y) * jnp.cos(p)])
    return jnp.stack([jnp.arctan2(ray[0], ray[2]), jnp.arcsin(jnp.clip(ray[1], -1, 1))])


def _weights(head: Head) -> np.ndarray:
    return landmark_weights() * np.asarray(head.landmark_trust)


def fit_portrait(head: Head, landmarks_01: np.ndarray) -> FaceFit:
    """Fits identity and motion to landmarks (478, 2 or 3) in [0, 1] of the square crop."""
    # numpy up to the program: every operation of JAX's outside of one compiles another.
    target = np.asarray(landmarks_01[:, :2], np.float32) * 2 - 1
    pose, placement, identity, expression, gaze, error = _fit_portrait(
        landmark_head(head), target, _weights(head)
    )
    motion = np.zeros(MOTION_DIM, np.float32)
    motion[:3] = pose
    motion[EXPRESSION] = expression
    motion[GAZE] = gaze
    fit = FaceFit(np.asarray(identity), motion, np.asarray(placement), np.asarray(error))
    return fit._replace(shape=residual_shape(head, fit, target))


def residual_shape(head: Head, fit: FaceFit, target_L2: Array) -> np.ndarray:
    """Shape (V, 3) in cm that takes a fitted face the rest of the way to its landmarks.

    The head model knows few eyes and lips; what remains of the landmarks' distances after the fit
    is spread over the face by Gaussian-process regression, in the plane of the picture, as part of
    the person: it turns with the head and moves with the expressions.
    """
    rot, seen = (np.asarray(x) for x in _seen(head, fit.identity, fit.motion, fit.placement))
    seen = seen[: len(SPREAD_OVER)]
    left = (np.asarray(target_L2)[: len(seen)] - seen[:, :2]) * [1.0, -1.0]
    left *= (1.0 - seen[:, 2:] / heads.CAMERA_CM) / fit.placement[2]  # cm in the camera's frame
    left *= (np.asarray(head.landmark_trust)[: len(seen)] > 0)[:, None]
    return (np.pad(_spread(head, left), ((0, 0), (0, 1))) @ rot).astype(np.float32)


def _seen_landmarks(head: Head, identity, motion, placement) -> tuple[jax.Array, jax.Array]:
    """Rotation (3, 3) and landmarks (478, 3) of a fitted head."""
    rot = heads.rotation(motion[0], motion[1], motion[2])
    return rot, heads.landmarks(head, heads.place_fit(head, identity, motion, placement))


_seen = Program(_seen_landmarks)


def _spread(head: Head, left_L2: np.ndarray) -> np.ndarray:
    """Distances of the mesh landmarks (468, 2) regressed to all vertices: (V, 2)."""
    # Lips and lids apart, or neighbours across an opening would share what is not shared.
    opened = np.asarray(head.base) + np.float32(0.6) * np.asarray(head.expression)[_JAW]
    index, weight = np.asarray(head.landmark_vertices), np.asarray(head.landmark_weights)
    points = np.einsum("lkc,lk->lc", opened[index], weight)[: len(SPREAD_OVER)].astype(np.float32)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # In place and in float32: plenty for a covariance, and the matrix has 1.4 million numbers.
        square = a @ b.T
        square *= -2.0
        square += np.square(a).sum(-1)[:, None]
        square += np.square(b).sum(-1)
        total = np.zeros_like(square)
        for width in SPREAD_WIDTHS_CM:
            near = square * np.float32(-0.5 / width**2)
            total += np.exp(near, out=near)
        total *= SPREAD_CM**2
        return total

    noise = np.square(SPREAD_OVER)
    to_vertices = kernel(opened, points)
    to_vertices[np.asarray(head.eye) > 0] = 0.0
    # Solved for these distances alone, a seventh of the work of solving for every vertex.
    return to_vertices @ np.linalg.solve(kernel(points, points) + np.diag(noise), left_L2)


def fit_sequence(head: Head, landmarks_T: np.ndarray, reference: FaceFit) -> np.ndarray:
    """Motion (T, 54) of a clip whose person and crop are those of ``reference``.

    Pose angles are absolute; translation (head widths) and log-scale are relative to the
    reference's placement. ``landmarks_T`` is (T, 478, 2 or 3) in [0, 1] of the reference's crop.
    """
    target = jnp.asarray(landmarks_T[..., :2], jnp.float32) * 2 - 1
    lm_head = jax.tree.map(jnp.asarray, landmark_head(head))
    pose, placement, expression, eye = _fit_frames(
        lm_head, jnp.asarray(reference.identity), jnp.asarray(reference.motion[:3]), target,
        _weights(head),
    )  # fmt: skip
    rot = heads.rotation(pose[:, 0], pose[:, 1], pose[:, 2])
    gaze = jax.vmap(camera_gaze)(rot, eye)
    motion = np.zeros((len(target), MOTION_DIM), np.float32)
    own, moved = np.asarray(reference.placement), np.asarray(placement)
    motion[:, POSE] = heads.motion_between(own, moved)
    motion[:, :3] = pose
    motion[:, EXPRESSION] = expression
    motion[:, GAZE] = gaze
    return motion
