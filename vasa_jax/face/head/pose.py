"""The rigid half of the full model's warps: 7 pose numbers as a matrix between two cubes.

The *view* cube is the crop: x to the right and y down in [-1, 1], z towards the viewer. The
*canonical* cube has the same axes around an upright head of reference size whose origin is its
centre. With the pose of ``core/types.py`` (yaw, pitch, roll, tx, ty, tz, log-scale)::

    view = S (R (canonical - pivot) + pivot) + t

The head turns about the top of its neck (``face.head.PIVOT_CM``), so that a turn alone explains as
much as it can. The pose is absolute, as fitted from landmarks (``E_pose``, frozen); it stands for
rotation and placement of a fit together (``pose_vector``). The projection is parallel; what
perspective adds is left to the non-rigid warp.

Backward sampling needs the matrix *into* the space that is sampled: canonical from posed uses
``view_from_canonical`` of the source, driver from canonical uses ``canonical_from_view`` of the
driver (paper facts 2.1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import HEAD_WIDTH_CM
from vasa_jax.face.head.head import PIVOT_CM, move_placement, rotation
from vasa_jax.nn.warp import Points, centres, image_grid

POSE_DIM = 7
REFERENCE_SCALE = 1 / 14.0  # crop units per cm: a head as large as in a usual crop
BOX_CM = 1.15 * HEAD_WIDTH_CM  # half side of the canonical cube


def pose_vector(motion_54: jax.Array, placement_3: jax.Array) -> jax.Array:
    """Absolute pose (7,) of a fitted picture: its motion and placement as one."""
    cx, cy, s = move_placement(placement_3, motion_54)
    unit = HEAD_WIDTH_CM * REFERENCE_SCALE
    place = jnp.stack([cx / unit, -cy / unit, motion_54[5], jnp.log(s / REFERENCE_SCALE)])
    return jnp.concatenate([motion_54[:3], place])


def drive_pose(own_7: jax.Array, motion_7: jax.Array) -> jax.Array:
    """Absolute pose (7,) of a portrait's own pose and a driving one, which is relative to it.

    The same as ``face.head.drive`` and ``pose_vector`` of what comes of it: head widths count in
    the portrait's size.
    """
    place = own_7[3:5] + jnp.exp(own_7[6]) * motion_7[3:5]
    return jnp.concatenate([own_7[:3] + motion_7[:3], place, own_7[5:] + motion_7[5:]])


def relative_pose(own_7: jax.Array, pose_7: jax.Array) -> jax.Array:
    """The driving pose (7,) that leads from one absolute pose to another: undoes ``drive_pose``."""
    place = (pose_7[3:5] - own_7[3:5]) * jnp.exp(-own_7[6])
    return jnp.concatenate([pose_7[:3] - own_7[:3], place, pose_7[5:] - own_7[5:]])


def placement_of_pose(pose_7: jax.Array) -> jax.Array:
    """Placement (3,) of a head in an absolute pose: the inverse of ``pose_vector``."""
    unit = HEAD_WIDTH_CM * REFERENCE_SCALE
    scale = REFERENCE_SCALE * jnp.exp(pose_7[6])
    return jnp.stack([unit * pose_7[3], -unit * pose_7[4], scale])


def _affine(linear_33: jax.Array, shift_3: jax.Array) -> jax.Array:
    return jnp.concatenate([linear_33, shift_3[:, None]], 1)


def _parts(pose_7: jax.Array):
    """Rotation (3, 3), zoom () and shift (3,) in the axes of the cubes, and the pivot (3,)."""
    flip = jnp.array([1.0, -1.0, 1.0])  # y is down in the cubes, up in the head's frame
    turn = rotation(pose_7[0], pose_7[1], pose_7[2]) * flip[:, None] * flip[None, :]
    zoom = jnp.exp(pose_7[6]) * (REFERENCE_SCALE * BOX_CM)
    shift = pose_7[3:6] * flip * (HEAD_WIDTH_CM * REFERENCE_SCALE)
    pivot = jnp.array(PIVOT_CM) * flip / BOX_CM
    return turn, zoom, shift, pivot


def view_from_canonical(pose_7: jax.Array) -> jax.Array:
    """Affine matrix (3, 4) that takes canonical points to the view."""
    turn, zoom, shift, pivot = _parts(pose_7)
    return _affine(zoom * turn, zoom * (pivot - turn @ pivot) + shift)


def canonical_from_view(pose_7: jax.Array) -> jax.Array:
    """Inverse of ``view_from_canonical``, in closed form."""
    turn, zoom, shift, pivot = _parts(pose_7)
    back = turn.T
    return _affine(back / zoom, pivot - back @ (shift / zoom + pivot))


def rigid_grid(matrix_B34: jax.Array, shape_ZYX: tuple[int, ...]) -> Points:
    """Where each cell of a volume looks: x, y and z, each (B, Z, Y, X), float32."""
    x, y, z = (a[None] for a in centres(*shape_ZYX))
    m = matrix_B34[..., None, None, None]
    return tuple(m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] * z + m[:, k, 3] for k in range(3))


def face_crop_points(pose_7: jax.Array, size: int, *, zoom: float = 2.0) -> jax.Array:
    """Points (size, size, 2) of the picture that show the face upright and ``zoom`` times larger.

    Undoes what of the pose happens in the picture plane: shift, size and roll. The middle is the
    centre of the head wherever the turn has brought it (MegaPortraits A.1).
    """
    center = view_from_canonical(pose_7)[:2, 3]
    span = jnp.exp(pose_7[6]) * (REFERENCE_SCALE * BOX_CM) / zoom
    c, s = jnp.cos(pose_7[2]), jnp.sin(pose_7[2])
    flat = image_grid(size, size)
    # Positive roll is clockwise as seen; y points down, so the turn has the usual signs.
    turn = jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])
    return center.reshape(1, 1, 2) + span * (flat @ turn.T)
