"""What a placed head says about every pixel: maps for the renderer, and where to look.

The raster of the driven head answers, per pixel, where in the portrait this surface point was: the
analytic backward flow of the lite renderer (variant F of the feasibility study).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Head, Pose
from vasa_jax.face.head.raster import dilate, rasterise
from vasa_jax.face.warp.lashes import lash_line
from vasa_jax.nn.fill import COARSE, cells, hole_of, push_pull, spread
from vasa_jax.nn.stored import from_memory
from vasa_jax.nn.warp import centres, image_grid

IRIS_RAD = 0.44
# log2 of how much a patch is stretched, where the portrait begins to be no longer trusted and where
# it says nothing: at a grazing angle a photograph shows skin, hair and background in one pixel.
# Beside the outline of its face, which no fit meets to the pixel, that begins with the first turn.
STRETCH, STRETCH_AT_RIM = (1.0, 2.2), (0.15, 0.5)

# x and y of a place for every pixel, (Y, X) each. Planes, here and in ``Maps``: XLA:CPU writes and
# reads numbers of different meaning that lie side by side several times slower (measured).
Flow = tuple[Array, Array]

FACE, SCALP = heads.GROUPS.index("face"), heads.GROUPS.index("scalp_neck")
_INTERIOR = (2, 4, 5, 6)  # groups seen through the open mouth


class SourceGeometry(NamedTuple):
    """The portrait's own head, placed once."""

    identity: Array  # (I,)
    motion: Array  # (54,) absolute, of the portrait
    placement: Array  # (3,)
    neutral: Array  # (V, 3)
    eye_centers: Array  # (2, 3)
    placed: Array  # (V, 3)
    group: Array  # (Y, X) of the triangle that is seen, -1 where none is
    near: Array  # (Y, X) cm: the farthest depth of four neighbours
    opening: Array  # (Y, X, 2) 1 where mouth interior / eyeball is seen
    rim: Array  # (Y, X) 0..1: just inside of an outline of the head, the largest of the four


def _is_interior(group: Array) -> Array:
    return functools.reduce(jnp.logical_or, [group == g for g in _INTERIOR])


def place_source(
    head: Head,
    identity_I: Array,
    motion_54: Array,
    placement_3: Array,
    shape_V3: Array | None = None,
    *,
    size: int,
) -> SourceGeometry:
    """Places the fitted head of a portrait and draws its depth; ``shape_V3`` as in ``FaceFit``."""
    neutral, centers = heads.person(head, identity_I)
    if shape_V3 is not None:
        neutral = neutral + shape_V3
    pose = Pose(
        heads.rotation(motion_54[0], motion_54[1], motion_54[2]), placement_3,
        motion_54[heads.EXPRESSION], motion_54[heads.GAZE],
    )  # fmt: skip
    placed = heads.place_head(head, neutral, centers, pose)
    raster = rasterise(placed, head.triangles, size=size)
    group = jnp.where(
        raster.triangle_YX >= 0, jnp.asarray(head.group)[jnp.maximum(raster.triangle_YX, 0)], -1
    )
    interior = _is_interior(group)
    eyeball = group >= 7
    opening = jnp.stack([interior, eyeball], -1).astype(jnp.float32)
    # The depth test asks for the farthest of a 2x2 block, else slopes stipple.
    near = _least_of_four(raster.depth_YX)
    rim = -_least_of_four(-_rim(raster.depth_YX, group, opening.max(-1)))
    return SourceGeometry(
        identity_I, motion_54, placement_3, neutral, centers, placed, group, near, opening, rim
    )


def _least_of_four(map_YX: Array) -> Array:
    """Of each pixel and those to its right and below: what a bilinear sample among them reads."""
    map_YX = jnp.pad(map_YX, (0, 1), mode="edge")
    map_YX = jnp.minimum(map_YX[:, :-1], map_YX[:, 1:])
    return jnp.minimum(map_YX[:-1], map_YX[1:])


RIM_PX = (2, 4)  # of 256: wide as that it is certain, and half as certain
JUMP_CM = 2.5  # of depth between neighbours: one of them hides something


def _rim(depth_YX: Array, group_YX: Array, opening_YX: Array) -> Array:
    """Just inside of an outline, 0..1: there fit and picture may disagree about what is seen."""
    hit = group_YX >= 0
    # The inside of a mouth lies far behind the lips, but where those end is well known.
    depth = jnp.where(opening_YX > 0, 1e3, jnp.where(hit, depth_YX, -1e3))
    farthest = -dilate(-depth, 1)
    edge = (hit & (opening_YX == 0) & (depth - farthest > JUMP_CM)).astype(jnp.float32)
    unit = max(depth_YX.shape[0] // 256, 1)
    return hit * sum(dilate(edge, k * unit) for k in RIM_PX) / len(RIM_PX)


class Maps(NamedTuple):
    """What the net is told about every pixel of the new picture, each (..., Y, X), 0..1 or as said.

    In the order in which the net takes them in.
    """

    mouth_interior: Array
    teeth_upper: Array
    teeth_lower: Array
    gums_tongue: Array
    eyeball: Array
    iris: Array
    face: Array
    normal_x: Array  # -1..1, as y
    normal_y: Array
    cover: Array  # of the whole head
    visible: Array  # in the portrait too
    stretch: Array  # log2 of area per area of the portrait, -3..3
    skin: Array  # of face or scalp, also where an opening covers it in the portrait

    @property
    def hidden(self) -> Array:
        """1 where the head is seen and the portrait does not show that part of it."""
        return self.cover * (1 - self.visible)


NUM_MAPS = len(Maps._fields)


class DriverGeometry(NamedTuple):
    """What the driven head says about every pixel of the new picture."""

    flow: Flow  # where to look in the portrait, [-1, 1]
    maps: Maps
    known: Array  # (Y, X) 0..1: face that the portrait shows well enough
    unknown: Array  # (Y, X) 0..1: face above the jaw line that it does not, and that is painted
    throat: Array  # (Y, X) 0..1: neck or underside of the jaw that the portrait does not show
    lashes: Array  # (Y, X) share of light that the lashes of shut eyes swallow


def drive_geometry(head: Head, source: SourceGeometry, pose: Pose, *, size: int) -> DriverGeometry:
    """Puts the portrait's head into ``pose`` and rasterises flow and maps."""
    placement = pose.placement
    moved = heads.place_head(head, source.neutral, source.eye_centers, pose)
    # The body stays where the portrait has it: the neck blends between both placements.
    rigid = jnp.asarray(head.rigid)[:, None]
    placed = jnp.concatenate(
        [rigid * moved[:, :2] + (1 - rigid) * source.placed[:, :2], moved[:, 2:]], -1
    )
    triangles = jnp.asarray(head.triangles)
    raster = rasterise(placed, triangles, size=size)

    # A row per triangle: affine maps of the picture, and what is the same all over it.
    d = placed[triangles]
    s = source.placed[triangles]
    origin, u, v = d[:, 0, :2], d[:, 1, :2] - d[:, 0, :2], d[:, 2, :2] - d[:, 0, :2]
    area = u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1]
    inverse = jnp.where(jnp.abs(area) > 1e-9, 1.0 / jnp.where(jnp.abs(area) > 1e-9, area, 1.0), 0.0)
    angle = jnp.asarray(head.iris_angle)[triangles]
    corner = jnp.concatenate([s, angle[..., None]], -1)  # (F, 3, 4): x, y, z, iris angle
    du, dv = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    gx = (du * v[:, 1:2] - dv * u[:, 1:2]) * inverse[:, None]
    gy = (dv * u[:, 0:1] - du * v[:, 0:1]) * inverse[:, None]
    constant = corner[:, 0] - gx * origin[:, :1] - gy * origin[:, 1:]
    e1, e2 = d[:, 1] - d[:, 0], d[:, 2] - d[:, 0]
    scale = jnp.array([1.0, -1.0, 0.0])
    depth_unit = placement[2]
    e1 = e1 * scale + jnp.stack([jnp.zeros_like(e1[:, 2])] * 2 + [e1[:, 2] * depth_unit], -1)
    e2 = e2 * scale + jnp.stack([jnp.zeros_like(e2[:, 2])] * 2 + [e2[:, 2] * depth_unit], -1)
    normal = jnp.cross(e1, e2)
    normal = normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    s_area = (s[:, 1, 0] - s[:, 0, 0]) * (s[:, 2, 1] - s[:, 0, 1]) - (s[:, 2, 0] - s[:, 0, 0]) * (
        s[:, 1, 1] - s[:, 0, 1]
    )
    # Driver area per source area: how much a patch of the portrait is stretched; log2, clipped.
    stretch = jnp.clip(
        jnp.log2(jnp.maximum(jnp.abs(area), 1e-7) / jnp.maximum(jnp.abs(s_area), 1e-7)), -3.0, 3.0
    )
    code = 4 * jnp.asarray(head.group) + 2 * _below_jaw(head) + (s_area < 0)
    code = code.astype(jnp.float32)
    table = jnp.concatenate([constant, gx, gy, normal[:, :2], stretch[:, None], code[:, None]], -1)
    skull_32 = _skull_motion(head, source, placed)
    # Stored, lest XLA:CPU compute a triangle anew for every pixel, and a pixel for every map.
    planes = from_memory(_planes, table.T, raster.triangle_YX)
    moved, around, kinds, maps, known, unknown, throat = from_memory(
        _pixel_maps, planes, raster.triangle_YX, source.near, source.rim, skull_32, pose
    )
    flow = from_memory(_carry_on, moved, around, kinds, placement)
    blink = jnp.clip(pose.expression[jnp.asarray(heads.BLINKS)], 0.0, 1.0)
    lashes = lash_line(head, placed, blink, placement[2], size=size)
    return DriverGeometry(flow, maps, known, unknown, throat, lashes * maps.cover)


# Height (cm) of the jaw line at the middle of the head, and how it falls per cm to the front.
JAW_CM, JAW_FALLS = -3.95, 0.415


def _below_jaw(head: Head) -> Array:
    """Which triangles (F,) are neck or the underside of the jaw, though of the face's mesh."""
    middle = jnp.asarray(head.base)[jnp.asarray(head.triangles)].mean(1)
    return middle[:, 1] < JAW_CM - JAW_FALLS * middle[:, 2]


def _planes(table_KF: Array, triangle_YX: Array) -> tuple[Array, ...]:
    """What the seen triangle says at each pixel, each (Y, X).

    Flow x and y, depth in the portrait, iris angle; normal x and y, stretch, code. A number at a
    time from a column that stays in the cache, not a row at a time: what reads them is then one
    loop over neighbours.
    """
    x, y = centres(*triangle_YX.shape)
    triangle = jnp.maximum(triangle_YX, 0)
    column = [
        table_KF[k].at[triangle].get(mode="promise_in_bounds", wrap_negative_indices=False)
        for k in range(16)
    ]
    affine = (column[k] + column[4 + k] * x + column[8 + k] * y for k in range(4))
    return *affine, *column[12:]


def _pixel_maps(
    planes: tuple[Array, ...], triangle_YX: Array, near_YX: Array, rim_YX: Array, skull_32: Array,
    pose: Pose,
) -> tuple[Any, ...]:  # fmt: skip
    """Flow of the head and of the background, kinds of pixels, maps and ``known``.

    The kinds, each (Y, X): seen in the portrait too; head, whose own flow is taken; hit at all.
    """
    size = triangle_YX.shape[0]
    flow_x, flow_y, depth, angle, normal_x, normal_y, stretch, code = planes
    hit = triangle_YX >= 0
    code = code.astype(jnp.int32)
    group, below_jaw = jnp.where(hit, code >> 2, -1), code & 2 > 0

    # Seen in the portrait: facing the viewer there and not behind something nearer.
    x, y = (
        jnp.clip((a + 1.0) * (size * 0.5) - 0.5, 0, size - 1).astype(jnp.int32)
        for a in (flow_x, flow_y)
    )
    near, rim = (m.reshape(-1)[y * size + x] for m in (near_YX, rim_YX))
    inside = (jnp.abs(flow_x) < 1.0) & (jnp.abs(flow_y) < 1.0)
    visible = hit & inside & (code & 1 == 1) & (depth > near - 0.25)
    low, high = (a + rim * (b - a) for a, b in zip(STRETCH, STRETCH_AT_RIM, strict=True))
    face, interior, eyeball = group == FACE, _is_interior(group), group >= 7
    known = (face & visible) * jnp.clip((high - stretch) / (high - low), 0.0, 1.0)
    head = face & ~below_jaw

    maps = Maps(
        interior, group == 5, group == 6, group == 4, eyeball,
        eyeball * jnp.clip((IRIS_RAD - angle) / 0.06 + 0.5, 0.0, 1.0), face, hit * normal_x,
        hit * normal_y, hit, visible, hit * stretch, face | (group == SCALP),
    )  # fmt: skip
    moved, around = _fade((flow_x, flow_y)), _background(skull_32, pose, size)
    kinds = (visible, visible | interior | eyeball | head, hit)
    maps, kinds = jax.tree.map(lambda m: m.astype(jnp.float32), (maps, kinds))
    throat = (hit & below_jaw & ~visible).astype(jnp.float32)
    return moved, around, kinds, maps, known, head * (1.0 - known), throat


REACH_PX = 28  # of 256: so far from the head the background goes its own way


def _carry_on(
    flow: Flow, around: Flow, kinds: tuple[Array, Array, Array], placement_3: Array
) -> Flow:
    """Flow that runs on smoothly from what is seen of the head into its surroundings.

    Else a head that turns uncovers, beside its new outline, the cheek where it was. Scalp, neck and
    the underside of the jaw that the portrait does not show count as surroundings: they look like
    what is beside them, not like what hides them there. On the side that turns away the face ends
    at its outline.
    """
    size = len(flow[0])
    visible, head, hit = kinds
    sure = cells(visible)
    off = jnp.stack([cells((f - a) * visible) for f, a in zip(flow, around, strict=True)], -1)
    near = (cells(hit) > 0).astype(jnp.float32)
    near = dilate(near, REACH_PX * size // 256 // COARSE)
    off = push_pull(off / jnp.maximum(sure, 1e-6)[..., None], near * hole_of(sure))
    way = image_grid(*near.shape) - placement_3[:2]
    way = way / jnp.sqrt(jnp.square(way).sum(-1, keepdims=True) + 1e-4)
    off = off - jnp.minimum((off * way).sum(-1, keepdims=True), 0.0) * way
    border = _border(size, 0.10)
    x, y = (
        jnp.where(head > 0, f, a + border * spread(off[..., k]))
        for k, (f, a) in enumerate(zip(flow, around, strict=True))
    )
    return x, y


CONTOUR_PX = (0.75, 2.25)  # jumps of the flow where a contour begins and where it is certain


def contour(flow: Flow) -> Array:
    """Weight 0..1 of being beside a contour ``(Y, X)``: there the flow jumps.

    Neighbouring pixels of one surface come from neighbouring places of the portrait; those that do
    not show two surfaces (or one at a grazing angle).
    """
    size = len(flow[0])
    at = centres(size, size)
    shift_x, shift_y = ((f - a) * (size * 0.5) for f, a in zip(flow, at, strict=True))
    low, high = CONTOUR_PX

    def weight(jump_x: Array, jump_y: Array) -> Array:
        largest = jnp.maximum(jnp.abs(jump_x), jnp.abs(jump_y))
        return jnp.clip((largest - low) / (high - low), 0.0, 1.0)

    down = weight(shift_x[1:] - shift_x[:-1], shift_y[1:] - shift_y[:-1])
    right = weight(shift_x[:, 1:] - shift_x[:, :-1], shift_y[:, 1:] - shift_y[:, :-1])
    # Padded: joined to a row of zeros, XLA:CPU takes five times as long.
    beside = jnp.maximum(jnp.pad(down, ((0, 1), (0, 0))), jnp.pad(down, ((1, 0), (0, 0))))
    beside = jnp.maximum(beside, jnp.pad(right, ((0, 0), (0, 1))))
    return jnp.maximum(beside, jnp.pad(right, ((0, 0), (1, 0))))


def _skull_motion(head: Head, source: SourceGeometry, placed_V3: Array) -> Array:
    """The affine map (3, 2) of (x, y, 1) that best explains, by least squares, how the skull moved.

    From the driven picture back to the portrait, as all flow.
    """
    base = jnp.asarray(head.base)
    w = ((base[:, 2] > -4.0) & (base[:, 2] < 5.0) & (base[:, 1] > -4.0)).astype(jnp.float32)[
        :, None
    ]
    a = jnp.concatenate([placed_V3[:, :2], jnp.ones_like(w)], -1)
    normal_33 = (a * w).T @ a + 1e-4 * jnp.eye(3)
    return solve3(normal_33, (a * w).T @ source.placed[:, :2])


def smooth(t: Array) -> Array:
    """0 below 0, 1 above 1, and between them without a corner (3 t^2 - 2 t^3)."""
    t = jnp.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _border(size: int, width: float) -> Array:
    """Weight (Y, X) that rises from 0 at the border of the crop to 1 inside."""
    x, y = centres(size, size)
    return smooth((1.0 - jnp.maximum(jnp.abs(x), jnp.abs(y)) - 0.02) / width)


def _fade(flow: Flow) -> Flow:
    """The mesh ends at the neck inside the picture: its flow without any motion at the border."""
    (flow_x, flow_y), (x, y) = flow, centres(*flow[0].shape)
    border = _border(len(flow_x), 0.10)
    return x + border * (flow_x - x), y + border * (flow_y - y)


def head_plane(pose: Pose, size: int) -> tuple[Array, Array]:
    """Where each pixel would be on a flat head, cm to the right and up, (Y, X) each."""
    grid_x, grid_y = centres(size, size)
    right, up = pose.rotation[:2, 0], pose.rotation[:2, 1]
    qx = (grid_x - pose.placement[0]) / pose.placement[2]
    qy = (pose.placement[1] - grid_y) / pose.placement[2]
    x = (qx * right[0] + qy * right[1]) / jnp.maximum(jnp.sum(right**2), 0.3)
    y = (qx * up[0] + qy * up[1]) / jnp.maximum(jnp.sum(up**2), 0.3)
    return x, y


def _background(skull_32: Array, pose: Pose, size: int) -> Flow:
    """Where no mesh is: hair follows the skull, the rest of the picture stays; in between, blend.

    The skull's weight falls from 1 on the head (hair included) to 0 before the border of the crop,
    and down the neck.
    """
    grid_x, grid_y = centres(size, size)
    x, y = head_plane(pose, size)
    rho = jnp.sqrt((x / 10.5) ** 2 + ((y - 2.5) / 13.0) ** 2)
    weight = (1.0 - smooth((rho - 1.0) / 0.75)) * smooth((y + 16.0) / 7.5) * _border(size, 0.14)
    # By hand: products with matrices of two and three numbers cost more than the rest together.
    skull_x, skull_y = (
        grid_x * skull_32[0, k] + grid_y * skull_32[1, k] + skull_32[2, k] for k in range(2)
    )
    return grid_x + weight * (skull_x - grid_x), grid_y + weight * (skull_y - grid_y)


def solve3(a_33: Array, b_3n: Array) -> Array:
    """x (3, n) of ``a x = b``, by Cramer: LAPACK's would be a call out of the fused program."""
    c0 = jnp.cross(a_33[1], a_33[2])
    c1 = jnp.cross(a_33[2], a_33[0])
    c2 = jnp.cross(a_33[0], a_33[1])
    adjugate = jnp.stack([c0, c1, c2], -1)
    return adjugate @ b_3n / (a_33[0] @ c0)
