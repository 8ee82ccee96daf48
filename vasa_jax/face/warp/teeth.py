"""Two rows of teeth as surfaces that a ray of view meets in closed form.

The triangles of a reduced head are too few for teeth, and a pixel of the model's square is a fifth
of one. A row of teeth, however, stands on half an ellipse: where a ray meets that elliptic cylinder
says which tooth is seen, how high on it, and how it is turned, at any resolution. Rows take their
place and size from the person's head; the lower one moves with its jaw.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Head, Pose
from vasa_jax.face.warp.geometry import Flow

# Where one tooth ends and the next begins, degrees on the ellipse from the middle of the front:
# measured on ICT-FaceKit's head, whose rows of teeth lie within a few percent of such an ellipse.
UPPER_DEG = (0.0, 15.3, 26.7, 36.8, 46.5, 54.4, 66.7, 78.3, 90.0)
LOWER_DEG = (0.0, 13.7, 26.0, 36.5, 45.0, 53.0, 65.6, 77.3, 89.0)
NOWHERE_CM = 1e3
FRONT, REAR = 0.8, 0.3  # of a row's depth: vertices before and behind that are its front and rear


class Row(NamedTuple):
    """Half an elliptic cylinder in the head's frame at rest, cm."""

    middle_x: Array  # ()
    half_width: Array  # ()
    rear_z: Array  # () of its widest place
    depth: Array  # () from there to the front
    tip_y: Array  # () of the front teeth
    rise: Array  # () by which the rearmost tips lie higher


class Jaw(NamedTuple):
    """How the front and the rear of the lower row move per weight of each expression."""

    front: Array  # (3,) cm, at rest
    rear: Array  # (3,)
    front_by: Array  # (45, 3) cm
    rear_by: Array  # (45, 3)


class Teeth(NamedTuple):
    upper: Row
    lower: Row
    jaw: Jaw


class Hit(NamedTuple):
    """What each ray (Y, X) meets of one row."""

    share: Array  # 0..1 of the pixel that is tooth or gum of this row
    high: Array  # cm above the row's tips; of the lower row, below
    across: Array  # -1..1 from edge to edge of the tooth
    behind: Array  # cm behind the row's front
    facing: Array  # cosine between its surface and the view


def teeth_of(head: Head, neutral_V3: Array) -> Teeth:
    """The rows of a person with that neutral shape."""
    upper, lower = (_vertices(head, name) for name in ("teeth_upper", "teeth_lower"))
    base, by = jnp.asarray(head.base), jnp.asarray(head.expression)

    def mean(rows: Array, where: Array) -> Array:
        return jnp.einsum("...vc,v->...c", rows, where) / jnp.maximum(where.sum(), 1.0)

    front, rear = _ends(base, lower)
    jaw = Jaw(mean(neutral_V3, front), mean(neutral_V3, rear), mean(by, front), mean(by, rear))
    return Teeth(_row(neutral_V3, upper, -1.0), _row(neutral_V3, lower, 1.0), jaw)


def _vertices(head: Head, group: str) -> Array:
    """1 for vertices (V,) of a group's triangles."""
    mine = (jnp.asarray(head.group) == heads.GROUPS.index(group)).astype(jnp.float32)
    triangles = jnp.asarray(head.triangles)
    weight = jnp.broadcast_to(mine[:, None], triangles.shape)
    return jnp.zeros(len(head.base)).at[triangles].max(weight)


def _least(value_V: Array, where_V: Array) -> Array:
    return jnp.where(where_V > 0, value_V, jnp.inf).min()


def _ends(shape_V3: Array, where_V: Array) -> tuple[Array, Array]:
    """Vertices (V,) of a row's front and of its rear, 0 or 1."""
    z = shape_V3[:, 2]
    low, high = _least(z, where_V), -_least(-z, where_V)
    return (
        where_V * (z > low + FRONT * (high - low)),
        where_V * (z < low + REAR * (high - low)),
    )


def _row(shape_V3: Array, where_V: Array, towards: float) -> Row:
    """``towards`` is the side on which its tips are: 1 up, -1 down.

    A head without such teeth has them where nothing is ever seen.
    """
    x, y, z = shape_V3.T
    left, right = _least(x, where_V), -_least(-x, where_V)
    rear, front = _least(z, where_V), -_least(-z, where_V)
    ends = _ends(shape_V3, where_V)
    tip, tip_rear = (-towards * _least(-towards * y, end) for end in ends)
    row = Row(0.5 * (left + right), 0.5 * (right - left), rear, front - rear, tip, tip_rear - tip)
    none = Row(0.0, 1.0, 0.0, 1.0, -towards * NOWHERE_CM, 0.0)
    return jax.tree.map(functools.partial(jnp.where, where_V.max() > 0), row, none)


def see(teeth: Teeth, pose: Pose, at: Flow, *, pixel: float) -> tuple[Hit, Hit]:
    """Upper and lower row as they are seen at places (x, y of the crop) ``pixel`` apart."""
    start, way = _rays(pose, at)
    pixel_cm = pixel / pose.placement[2]
    upper = _meet(teeth.upper, UPPER_DEG, start, way, pose, pixel_cm, -1.0, 0.0)
    angle, moved = _jaw_motion(teeth.jaw, pose.expression)
    start = _back(start, teeth.jaw.rear, angle, moved)
    way = _back(way, jnp.zeros(3), angle, jnp.zeros(3))
    lower = _meet(teeth.lower, LOWER_DEG, start, way, pose, pixel_cm, 1.0, angle)
    return upper, lower


Vector = tuple[Array, Array, Array]  # x, y, z, each (Y, X): planes, see ``geometry.Flow``


def _rays(pose: Pose, at: Flow) -> tuple[Vector, Vector]:
    """Points of view rays in the head's frame: start + depth * way, depth in the camera's cm."""
    (cx, cy, s), r, (x, y) = pose.placement, pose.rotation, at
    right, up = (x - cx) / s, (cy - y) / s
    px, py, pz = heads.PIVOT_CM

    def into_head(a: Array, b: Array, c: Array) -> Vector:
        x, y, z = (r[0, k] * a + r[1, k] * b + r[2, k] * c for k in range(3))
        return x, y, z

    start = into_head(right - px, up - py, jnp.full_like(right, -pz))
    way = into_head(-right / heads.CAMERA_CM, -up / heads.CAMERA_CM, jnp.ones_like(right))
    return (start[0] + px, start[1] + py, start[2] + pz), way


def _jaw_motion(jaw: Jaw, expression_45: Array) -> tuple[Array, Array]:
    """Turn (rad, front down) of the lower row about an axis to the right, and its shift (3,) cm."""
    front_by, rear_by = expression_45 @ jaw.front_by, expression_45 @ jaw.rear_by
    before = jaw.front - jaw.rear
    after = before + front_by - rear_by
    angle = jnp.arctan2(before[1], before[2]) - jnp.arctan2(after[1], after[2])
    return angle, rear_by


def _back(point: Vector, center_3: Array, angle: Array, moved_3: Array) -> Vector:
    """Where on the jaw at rest a point of the moved jaw is."""
    x, y, z = (p - c - m for p, c, m in zip(point, center_3, moved_3, strict=True))
    c, n = jnp.cos(angle), jnp.sin(angle)
    return x + center_3[0], c * y + n * z + center_3[1], c * z - n * y + center_3[2]


def _meet(
    row: Row, edges_deg: tuple[float, ...], start: Vector, way: Vector, pose: Pose,
    pixel_cm: Array, towards: float, angle: Array | float,
) -> Hit:  # fmt: skip
    ox, oz = (start[0] - row.middle_x) / row.half_width, (start[2] - row.rear_z) / row.depth
    dx, dz = way[0] / row.half_width, way[2] / row.depth
    a = jnp.maximum(dx * dx + dz * dz, 1e-6)  # 0 for a view from below
    b, c = ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    under = b * b - a * c
    depth = (jnp.sqrt(jnp.maximum(under, 0.0)) - b) / a
    x, z, y = ox + depth * dx, oz + depth * dz, start[1] + depth * way[1]
    on_row = (under > 0) & (z > 0)
    across = _across(jnp.abs(x), edges_deg)
    tip = row.tip_y + row.rise * (1.0 - z)
    high = towards * (tip - y) - ROUNDED_CM * across**4
    share = on_row * jnp.clip(high / pixel_cm + 0.5, 0.0, 1.0)
    # The normal of the cylinder, towards the viewer.
    nx, nz = x / row.half_width, z / row.depth
    length = jnp.sqrt(nx * nx + nz * nz) + 1e-9
    r, n = pose.rotation[2], jnp.sin(angle)
    facing = (r[0] * nx + (r[2] * jnp.cos(angle) - r[1] * n) * nz) / length
    return Hit(share, high, across, row.depth * (1.0 - z), facing)


ROUNDED_CM = 0.09  # by which a tooth's corners lie behind its tip


def _across(sine: Array, edges_deg: tuple[float, ...]) -> Array:
    edges = np.sin(np.deg2rad(edges_deg))
    done = sum(
        jnp.clip((sine - low) / (high - low), 0.0, 1.0)
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    )
    return 2.0 * (done - jnp.floor(jnp.minimum(done, len(edges) - 1.001))) - 1.0
