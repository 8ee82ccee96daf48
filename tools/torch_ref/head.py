"""The morphable head for batches of poses (``vasa_jax/face/head/head.py``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vasa_jax.core.arkit import EXPRESSION, GAZE
from vasa_jax.core.types import HEAD_WIDTH_CM, POSE
from vasa_jax.face.head.head import (
    BLINKS,
    CAMERA_CM,
    LID_TRAVEL,
    MAX_EYE_PITCH,
    MAX_EYE_YAW,
    PIVOT_CM,
    Head,
)
from vasa_jax.face.warp.lashes import LOWER, UPPER


class Pose(NamedTuple):
    """Where B heads are and what they do, absolute."""

    rotation: Tensor  # (B, 3, 3)
    placement: Tensor  # (B, 3)
    expression: Tensor  # (B, 45)
    gaze: Tensor  # (B, 2)


class HeadTensors(NamedTuple):
    """What rendering needs of a head, on the device; triangles sorted by size class."""

    base: Tensor  # (V, 3)
    identity: Tensor  # (I, V 3)
    shapes: Tensor  # (53, V 3) expressions, then lid movements
    triangles: Tensor  # (F, 3) int64
    group: Tensor  # (F,) float32
    rigid: Tensor  # (V, 1)
    eyeball: Tensor  # (V, 1) bool
    side: Tensor  # (V,) int64, 0 left, 1 right
    eye_center: Tensor  # (2, 3)
    eye_center_identity: Tensor  # (I, 2, 3)
    iris_angle: Tensor  # (V,)
    lids: Tensor  # (2, 2, 2) int64
    lids_shut: Tensor  # (2, 2)
    margins: Tensor  # (2, 2, 9, 6) int64 vertices of the lids' landmarks, upper then lower
    margin_weights: Tensor  # (2, 2, 9, 6)


def head_tensors(head: Head, device: str | torch.device) -> HeadTensors:
    """A head on the device."""

    def put(x: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.array(x)).to(device, dtype)

    eye = put(head.eye, torch.int64)
    margins = np.stack([np.array(UPPER), np.array(LOWER)], 1)
    flat = [np.asarray(x).reshape(len(x), -1) for x in (head.expression, head.look)]
    return HeadTensors(
        put(head.base), put(np.asarray(head.identity).reshape(len(head.identity), -1)),
        put(np.concatenate(flat)), put(head.triangles, torch.int64), put(head.group),
        put(head.rigid)[:, None], (eye > 0)[:, None], (eye - 1).clamp(0, 1),
        put(head.eye_center), put(head.eye_center_identity), put(head.iris_angle),
        put(head.lids, torch.int64), put(head.lids_shut),
        put(np.asarray(head.landmark_vertices)[margins], torch.int64),
        put(np.asarray(head.landmark_weights)[margins]),
    )  # fmt: skip


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """(B, 3, 3): R = Ry Rx Rz."""
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    cr, sr = roll.cos(), roll.sin()
    one, nil = torch.ones_like(cy), torch.zeros_like(cy)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, -1).reshape(*cy.shape, 3, 3)

    ry = matrix(cy, nil, sy, nil, one, nil, -sy, nil, cy)
    rx = matrix(one, nil, nil, nil, cp, sp, nil, -sp, cp)
    rz = matrix(cr, sr, nil, -sr, cr, nil, nil, nil, one)
    return ry @ rx @ rz


def move_placement(placement: Tensor, motion: Tensor) -> Tensor:
    """Placement (..., 3) after translation and log-scale of motions (B, 54)."""
    unit = HEAD_WIDTH_CM * placement[..., 2]
    return torch.stack(
        [
            placement[..., 0] + unit * motion[..., 3], placement[..., 1] - unit * motion[..., 4],
            placement[..., 2] * motion[..., 6].exp(),
        ],
        -1,
    )  # fmt: skip


def absolute_pose(motion_BM: Tensor, placement_B3: Tensor) -> Pose:
    """The pose of absolute motions (a fitted picture)."""
    rot = rotation(*motion_BM[:, :3].unbind(1))
    placed = move_placement(placement_B3, motion_BM)
    return Pose(rot, placed, motion_BM[:, EXPRESSION], motion_BM[:, GAZE])


def drive(portrait_M: Tensor, placement_3: Tensor, motion_BM: Tensor, share_E: Tensor) -> Pose:
    """Driving motions added to one portrait; ``share_E`` is ``head.resting_share()``."""
    rot = rotation(*(portrait_M[POSE] + motion_BM[:, POSE])[:, :3].unbind(1))
    own, asked = portrait_M[EXPRESSION], motion_BM[:, EXPRESSION]
    columns = list((share_E * own + asked).unbind(1))
    for i in BLINKS:  # narrow eyes stay narrow and still close fully
        closed = 0.8 * own[i]
        columns[i] = closed + (1 - closed) * asked[:, i]
    expression = torch.stack(columns, 1).clamp(0.0, 1.15)
    return Pose(rot, move_placement(placement_3, motion_BM), expression, motion_BM[:, GAZE])


def person(head: HeadTensors, identity_I: Tensor) -> tuple[Tensor, Tensor]:
    """Neutral vertices (V, 3) and eye centres (2, 3) of one identity."""
    vertices = head.base + (identity_I @ head.identity).reshape(head.base.shape)
    centers = torch.einsum("i,ikc->kc", identity_I, head.eye_center_identity)
    return vertices, head.eye_center + centers


def eye_in_head(rot: Tensor, gaze_B2: Tensor) -> Tensor:
    """Yaw and pitch (B, 2) of the eyes in the head for a gaze in the camera's frame."""
    y, p = gaze_B2.unbind(1)
    ray = torch.stack([y.sin() * p.cos(), p.sin(), y.cos() * p.cos()], 1)
    x, u, f = (rot * ray[:, :, None]).sum(1).unbind(1)
    yaw = torch.atan2(x, f).clamp(-MAX_EYE_YAW, MAX_EYE_YAW)
    pitch = torch.atan2(u, torch.hypot(x, f)).clamp(-MAX_EYE_PITCH, MAX_EYE_PITCH)
    return torch.stack([yaw, pitch], 1)


def blink_shares(pose: Pose) -> Tensor:
    """(B, 2), left and right."""
    return torch.stack([pose.expression[:, i] for i in BLINKS], 1).clamp(0.0, 1.0)


def _closed_lids(head: HeadTensors, open_BV3: Tensor, blinks_B2: Tensor) -> Tensor:
    """Movement (B, V, 3) of the lids, which meet at weight 1."""
    moved = torch.zeros_like(open_BV3)
    x = head.base[:, 0]
    for side, i in enumerate(BLINKS):
        shape = head.shapes[i].reshape(-1, 3)
        upper, lower = head.lids[side].unbind(1)
        gap = open_BV3[:, upper, 1] - open_BV3[:, lower, 1] - head.lids_shut[side]
        travel = (shape[lower, 1] - shape[upper, 1]).clamp(min=0.05)
        times = (gap / travel).clamp(*LID_TRAVEL)
        across = ((x - x[upper[0]]) / (x[upper[1]] - x[upper[0]])).clamp(0.0, 1.0)
        times = times[:, :1] + (times[:, 1:] - times[:, :1]) * across
        moved = moved + (blinks_B2[:, side, None] * times)[..., None] * shape
    return moved


def place_head(head: HeadTensors, neutral_V3: Tensor, centers_23: Tensor, pose: Pose) -> Tensor:
    """One person in B poses: placed vertices (B, V, 3), X and Y in crop units, depth in cm."""
    yaw, pitch = eye_in_head(pose.rotation, pose.gaze).unbind(1)
    up, down = pitch.relu() / 0.5, (-pitch).relu() / 0.5
    left, right = (-yaw).relu() / 0.6, yaw.relu() / 0.6
    look = torch.stack([up, up, down, down, left, right, right, left], 1)
    kept = [torch.zeros_like(yaw) if i in BLINKS else e
            for i, e in enumerate(pose.expression.unbind(1))]  # fmt: skip
    weights = torch.cat([torch.stack(kept, 1), look], 1)
    b = len(weights)
    v = torch.addmm(neutral_V3.reshape(1, -1), weights, head.shapes).reshape(b, -1, 3)
    blinks = blink_shares(pose)
    v = v + _closed_lids(head, v, blinks)
    blink = blinks[:, head.side, None]
    center = centers_23[head.side]
    q = (v - center) @ rotation(yaw, pitch, torch.zeros_like(yaw)).mT
    length = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    limit = 1.47 - 0.10 * blink
    shorter = (limit + (length - limit) * (1 - 0.9 * blink)) / length.clamp(min=1e-6)
    q = q * torch.where(length > limit, shorter, 1.0)
    back = torch.nn.functional.pad(0.03 + 0.05 * blink, (2, 0))
    v = torch.where(head.eyeball, q + center - back, v)
    pivot = _pivot(v.device)
    v = (v - pivot) @ pose.rotation.mT + pivot
    d = 1.0 / (1.0 - v[..., 2:] / CAMERA_CM)
    cx, cy, s = (n[:, None, None] for n in pose.placement.unbind(1))
    return torch.cat([cx + s * v[..., :1] * d, cy - s * v[..., 1:2] * d, v[..., 2:]], -1)


def _pivot(device: torch.device) -> Tensor:
    # Filled on the device: a copy from the host has no place in a CUDA graph.
    x, y, z = (torch.full((), float(n), device=device) for n in PIVOT_CM)
    return torch.stack([x, y, z])
