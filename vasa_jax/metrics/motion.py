"""How a head lives, from its landmarks: pose, blinks, gaze, distance, jitter.

All from the 478 landmarks of ``face.finder`` alone, without the head model that the renderer uses,
so that the judge does not share the defendant's errors. Angles have the signs of ``core.types``.
Absolute pitch and vertical gaze depend on a person's build (a few degrees); differences do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from vasa_jax.core.types import FPS
from vasa_jax.metrics.sync import fill

# Points that speech and expression leave in place, in a face that looks into the camera: x right,
# y up, z towards the viewer, outer eye corners one unit apart. Mean of the finder's landmarks on
# 116 generated and painted portraits, aligned and made symmetric.
# fmt: off
RIGID_POINTS = (33, 263, 133, 362, 234, 454, 127, 356, 21, 251, 54, 284, 67, 297, 103, 332, 168, 6,
                197, 10, 151, 9, 4)
RIGID_SHAPE = np.array([
    [-0.5, -0.172, 0.033], [0.5, -0.172, 0.033], [-0.205, -0.199, 0.096], [0.205, -0.199, 0.096],
    [-0.773, -0.367, -0.596], [0.773, -0.367, -0.596], [-0.787, -0.203, -0.538],
    [0.787, -0.203, -0.538], [-0.75, 0.113, -0.263], [0.75, 0.113, -0.263],
    [-0.685, 0.248, -0.118], [0.685, 0.248, -0.118], [-0.406, 0.425, 0.161], [0.406, 0.425, 0.161],
    [-0.576, 0.354, 0.032], [0.576, 0.354, 0.032], [0.0, -0.121, 0.284], [0.0, -0.219, 0.33],
    [0.0, -0.303, 0.385], [0.0, 0.464, 0.254], [0.0, 0.272, 0.29], [0.0, 0.075, 0.311],
    [0.0, -0.564, 0.531],
])
# fmt: on

# Six points per eye, as in Soukupova & Cech 2016: corner, two above, corner, two below.
EYE_POINTS = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
IRIS_CENTRES = (468, 473)
# The eye turns about a point 10.5 mm behind the iris; its visible slit is about 30 mm wide.
SLIT_TO_RADIUS = 30.0 / 10.5
# Above the line through the corners of the eye lies the iris of somebody who looks straight ahead;
# as a turn of the eye, median of people who speak into the camera.
IRIS_RISE_DEG = 8.0
BLINK_DEPTH = 0.45  # share of the open eye's height that must close
MIN_BLINK_FRAMES, MAX_BLINK_FRAMES = 2, 15


def _upright(landmarks: np.ndarray) -> np.ndarray:
    """Picture axes (y down, z away) -> x right, y up, z towards the viewer."""
    return np.asarray(landmarks, np.float64)[..., :3] * np.array([1.0, -1.0, -1.0])


def _rotation_to_angles(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 3) yaw, pitch, roll of ``R = Ry(yaw) Rx(-pitch) Rz(-roll)``."""
    ahead = rotation[..., :, 2]
    yaw = np.arctan2(ahead[..., 0], ahead[..., 2])
    pitch = np.arcsin(np.clip(ahead[..., 1], -1, 1))
    roll = -np.arctan2(rotation[..., 1, 0], rotation[..., 1, 1])
    return np.stack([yaw, pitch, roll], -1)


def head_pose(landmarks_TL3: np.ndarray) -> dict[str, np.ndarray]:
    """Similarity of the rigid shape onto each frame (Procrustes; frames with NaN give NaN).

    Returns ``angles`` (T, 3) yaw, pitch, roll in rad; ``rotation`` (T, 3, 3); ``centre`` (T, 2)
    and ``scale`` (T,) of the head in px (the distance of the outer eye corners seen from ahead).
    """
    points = _upright(np.asarray(landmarks_TL3)[:, RIGID_POINTS])
    ok = np.isfinite(points).all((1, 2))
    safe = np.where(ok[:, None, None], points, RIGID_SHAPE)
    shape = RIGID_SHAPE - RIGID_SHAPE.mean(0)
    middle = safe.mean(1)
    moved = safe - middle[:, None]
    u, s, vt = np.linalg.svd(np.einsum("tpi,pj->tij", moved, shape))
    flip = np.ones_like(s)
    flip[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * flip[:, None]) @ vt
    scale = (s * flip).sum(1) / (shape**2).sum()
    bad = np.where(ok, 0.0, np.nan)
    return {
        "angles": _rotation_to_angles(rotation) + bad[:, None],
        "rotation": rotation + bad[:, None, None],
        "centre": middle[:, :2] * np.array([1.0, -1.0]) + bad[:, None],
        "scale": scale + bad,
    }


def eye_opening(landmarks_TL3: np.ndarray) -> np.ndarray:
    """(T,) eye aspect ratio, mean of both eyes: height over width, about 0.3 open, 0.1 closed."""
    lm = np.asarray(landmarks_TL3, np.float64)

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(lm[:, a, :2] - lm[:, b, :2], axis=-1)

    ratios = []
    for p1, p2, p3, p4, p5, p6 in EYE_POINTS:
        # Width in 3D: a turned eye is foreshortened, not more open.
        width = np.linalg.norm(lm[:, p1] - lm[:, p4], axis=-1)
        ratios.append((distance(p2, p6) + distance(p3, p5)) / np.maximum(2 * width, 1e-9))
    return np.mean(ratios, 0)


def find_blinks(opening_T: np.ndarray, *, fps: float = FPS) -> list[tuple[int, int]]:
    """Blinks as (first, last + 1) frames in which the eyes are more than half way down.

    The open eye is the 80th percentile of the second before and after. Closures that last longer
    than 0.6 s are sleep or a look down, shorter than two frames noise of the landmarks.
    """
    opening = fill(opening_T)
    half = round(fps)
    padded = np.pad(opening, half, mode="reflect" if len(opening) > half else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    open_level = np.percentile(windows, 80, axis=1)
    shut = 1 - opening / np.maximum(open_level, 1e-9)
    down = shut > BLINK_DEPTH / 2
    edges = np.flatnonzero(np.diff(np.concatenate([[0], down.astype(int), [0]])))
    return [
        (int(a), int(b))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
        if MIN_BLINK_FRAMES <= b - a <= MAX_BLINK_FRAMES and shut[a:b].max() >= BLINK_DEPTH
    ]


def gaze(landmarks_TL3: np.ndarray) -> np.ndarray:
    """(T, 2) yaw and pitch of the gaze in rad, in the camera's frame.

    The iris' offset between the eye corners, in the head's own frame, turns the eye about its
    centre; the head turns the eye. Pitch keeps a constant of some degrees per person, and landmarks
    show little of it: on 1112 rendered faces an eye that turns by one degree is measured as 0.84
    sideways and 0.33 up or down.
    """
    lm = np.asarray(landmarks_TL3, np.float64)
    pose = head_pose(lm)
    rotation = pose["rotation"]
    turns = []
    for (inner, *_), iris in zip(EYE_POINTS, IRIS_CENTRES, strict=True):
        outer = 133 if inner == 33 else 263
        corners = _upright(lm[:, (inner, outer)])
        centre = _upright(lm[:, iris])
        # The iris net gives no depth: the centre is put on the plane of the corners.
        centre[:, 2] = corners[:, :, 2].mean(1)
        offset = np.einsum("tij,ti->tj", rotation, centre - corners.mean(1))
        width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)
        turns.append(offset[:, :2] / np.maximum(width, 1e-9)[:, None] * SLIT_TO_RADIUS)
    sine = np.mean(turns, 0) - np.array([0.0, np.sin(np.radians(IRIS_RISE_DEG))])
    sine = np.clip(sine, -0.95, 0.95)
    ray = np.concatenate([sine, np.sqrt(np.clip(1 - (sine**2).sum(1), 0.05, 1))[:, None]], 1)
    ray = np.einsum("tij,tj->ti", rotation, ray)
    norm = np.linalg.norm(ray, axis=1)
    return np.stack([np.arctan2(ray[:, 0], ray[:, 2]), np.arcsin(ray[:, 1] / norm)], 1)


def measure(landmarks_TL3: np.ndarray, *, fps: float = FPS) -> dict[str, Any]:
    """All motion values of one clip.

    ``head_motion_deg``: mean over frames of the angle between adjacent poses (the paper's delta P,
    degrees per frame), after smoothing by one frame so that noise of the landmarks does not count;
    ``head_jitter_deg``: what that smoothing removes (root mean square). ``head_std_deg``: spread of
    yaw, pitch and roll together. ``sway``: spread of the head's place in eye distances.
    ``scale_std``: spread of log distance. Blinks per minute and their median length;
    ``gaze_std_deg``.
    """
    lm = np.asarray(landmarks_TL3, np.float64)
    pose = head_pose(lm)
    angles = np.degrees(np.stack([fill(np.unwrap(a)) for a in fill_columns(pose["angles"])], 1))
    smooth = gaussian_filter1d(angles, 1.0, axis=0, mode="nearest")
    scale = fill(pose["scale"])
    eye = np.median(scale)
    centre = np.stack(fill_columns(pose["centre"]), 1) / max(eye, 1e-9)
    blinks = find_blinks(eye_opening(lm), fps=fps)
    look = np.degrees(np.stack(fill_columns(gaze(lm)), 1))
    minutes = len(lm) / fps / 60
    return {
        "found": float(np.isfinite(lm[:, 0, 0]).mean()),
        "head_motion_deg": float(np.linalg.norm(np.diff(smooth, axis=0), axis=1).mean())
        if len(lm) > 1
        else 0.0,
        "head_jitter_deg": float(np.sqrt(((angles - smooth) ** 2).sum(1).mean())),
        "head_std_deg": float(np.sqrt(angles.var(0).sum())),
        "sway": float(np.sqrt(centre.var(0).sum())),
        "scale_std": float(np.log(np.maximum(scale, 1e-9)).std()),
        "blinks_per_minute": len(blinks) / max(minutes, 1e-9),
        "num_blinks": len(blinks),
        "blink_ms": float(np.median([b - a for a, b in blinks]) * 1000 / fps)
        if blinks
        else float("nan"),
        "gaze_std_deg": float(np.sqrt(look.var(0).sum())),
    }


def fill_columns(values_TK: np.ndarray) -> list[np.ndarray]:
    """Each column with its NaN filled from the neighbours."""
    return [fill(values_TK[:, i]) for i in range(values_TK.shape[1])]
