"""A triangle rasteriser inside XLA, and the maps and flow it gives the renderer.

Every triangle tests a fixed window of pixels around its corner; a packed integer
(quantised depth, triangle number) is scattered with ``max`` into the picture, which is a z-buffer
in one operation of fixed shape: no loop, no second compilation, the same on CPU and GPU. Small
triangles get a small window, large ones a large window (300 k updates take 1.5 ms on two cores).

The raster of the driven head answers, per pixel, where in the portrait this surface point was: the
analytic backward flow of the lite renderer (variant F of the feasibility study).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.types import Array
from vasa_jax.face import head as heads
from vasa_jax.face.head import Head, Pose
from vasa_jax.face.lashes import lash_line
from vasa_jax.nn.stored import stored
from vasa_jax.nn.warp import image_grid

WINDOWS = (8, 14, 24)  # pixels at 256 per size class; faces up to 1.6 times the usual size
FRONT_SHARE = (0.8, 0.78, 0.66)  # most of each class that ever faces the viewer at once (measured)
DEPTH_RANGE_CM = 40.0
IRIS_RAD = 0.44
MAP_NAMES = (
    "mouth_interior", "teeth_upper", "teeth_lower", "gums_tongue", "eyeball", "iris", "face",
    "normal_x", "normal_y", "cover", "visible", "stretch",
)  # fmt: skip
NUM_MAPS = len(MAP_NAMES)

_INTERIOR = (2, 4, 5, 6)  # groups seen through the open mouth


class Raster(NamedTuple):
    """Which triangle is seen at each pixel, -1 for none, and the corners it was drawn with."""

    triangle_YX: Array
    depth_YX: Array  # cm, -1e3 where nothing is


def rasterise(
    placed_V3: Array, triangles_F3: Array, *, size: int, classes: tuple[int, ...]
) -> Raster:
    """Nearest front-facing triangle per pixel of a ``size`` x ``size`` picture.

    ``placed_V3`` has X, Y in [-1, 1] and depth towards the viewer; ``triangles_F3`` is sorted by
    size, ``classes`` counts each class. A triangle larger than its class's window is cut.
    """
    unit = size / 256.0
    half = size * 0.5
    corner_F32 = (placed_V3[:, :2][triangles_F3] + 1.0) * half
    depth_F3 = placed_V3[:, 2][triangles_F3]
    picture = jnp.full((size * size,), -1, jnp.int32)
    end = 0
    for count, window, share in zip(classes, WINDOWS, FRONT_SHARE, strict=True):
        begin, end = end, end + count
        if count == 0:
            continue
        k = max(3, int(np.ceil(window * unit)))
        # Only triangles that face the viewer can be seen; a stable partition keeps the shape fixed.
        corner, depth = corner_F32[begin:end], depth_F3[begin:end]
        edge_b, edge_c = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        back = edge_b[:, 0] * edge_c[:, 1] >= edge_c[:, 0] * edge_b[:, 1]
        order = jnp.argsort(back, stable=True)[: int(np.ceil(share * count))]
        x, y, z = corner[order, :, 0], corner[order, :, 1], depth[order]
        # Triangles on the last axis: it vectorises whatever the window's size.
        offset = jnp.arange(k, dtype=jnp.float32) + 0.5
        px = jnp.ceil(x.min(1) - 0.5) + offset[None, :, None]
        py = jnp.ceil(y.min(1) - 0.5) + offset[:, None, None]
        ux, uy, vx, vy = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0], x[:, 2] - x[:, 0], y[:, 2] - y[:, 0]
        area = ux * vy - vx * uy
        # y points down on the screen, so the outside of the mesh has negative area.
        inverse = jnp.where(area < -1e-9, 1.0 / jnp.minimum(area, -1e-9), 0.0)
        qx, qy = px - x[:, 0], py - y[:, 0]
        e1 = qx * (vy * inverse) - qy * (vx * inverse)
        e2 = qy * (ux * inverse) - qx * (uy * inverse)
        inside = (e1 >= 0) & (e2 >= 0) & (e1 + e2 <= 1) & (area < -1e-9)
        level = z[:, 0] + e1 * (z[:, 1] - z[:, 0]) + e2 * (z[:, 2] - z[:, 0])
        level = jnp.clip((level / DEPTH_RANGE_CM + 0.5) * 65535.0, 0, 65535).astype(jnp.int32)
        inside &= (px < size) & (py < size) & (px > 0) & (py > 0)
        key = jnp.where(inside, level * 8192 + (order.astype(jnp.int32) + begin), -1)
        # Wherever it points when it is not inside, -1 changes nothing there; so the place does not
        # ask who is inside, and XLA does not work all that out a second time.
        pixel = jnp.clip(py.astype(jnp.int32) * size + px.astype(jnp.int32), 0, size * size - 1)
        picture = picture.at[pixel.reshape(-1)].max(key.reshape(-1), mode="promise_in_bounds")
    key_YX = picture.reshape(size, size)
    hit = key_YX >= 0
    depth_YX = ((key_YX >> 13).astype(jnp.float32) / 65535.0 - 0.5) * DEPTH_RANGE_CM
    return Raster(
        triangle_YX=jnp.where(hit, key_YX & 8191, -1), depth_YX=jnp.where(hit, depth_YX, -1e3)
    )


class SourceGeometry(NamedTuple):
    """The portrait's own head, placed once."""

    identity: Array  # (I,)
    motion: Array  # (54,) absolute, of the portrait
    placement: Array  # (3,)
    neutral: Array  # (V, 3)
    eye_centers: Array  # (2, 3)
    placed: Array  # (V, 3)
    depth: Array  # (Y, X) cm
    opening: Array  # (Y, X, 2) 1 where mouth interior / eyeball is seen


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
    classes: tuple[int, ...],
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
    raster = rasterise(placed, head.triangles, size=size, classes=classes)
    group = jnp.where(
        raster.triangle_YX >= 0, jnp.asarray(head.group)[jnp.maximum(raster.triangle_YX, 0)], -1
    )
    interior = _is_interior(group)
    eyeball = group >= 7
    opening = jnp.stack([interior, eyeball], -1).astype(jnp.float32)
    return SourceGeometry(
        identity_I, motion_54, placement_3, neutral, centers, placed, raster.depth_YX, opening
    )


class DriverGeometry(NamedTuple):
    """What the driven head says about every pixel of the new picture."""

    flow: Array  # (Y, X, 2) where to look in the portrait, [-1, 1]
    maps: Array  # (Y, X, NUM_MAPS)
    skin: Array  # (Y, X, 1) 1 where the surface is skin that an opening covers in the portrait
    lashes: Array  # (Y, X, 1) share of light that the lashes of shut eyes swallow


def drive_geometry(
    head: Head, source: SourceGeometry, pose: Pose, *, size: int, classes: tuple[int, ...]
) -> DriverGeometry:
    """Puts the portrait's head into ``pose`` and rasterises flow and maps."""
    rot, placement = pose.rotation, pose.placement
    moved = heads.place_head(head, source.neutral, source.eye_centers, pose)
    # The body stays where the portrait has it: the neck blends between both placements.
    rigid = jnp.asarray(head.rigid)[:, None]
    placed = jnp.concatenate(
        [rigid * moved[:, :2] + (1 - rigid) * source.placed[:, :2], moved[:, 2:]], -1
    )
    triangles = jnp.asarray(head.triangles)
    raster = rasterise(placed, triangles, size=size, classes=classes)

    # One row of affine coefficients per triangle; one gather of rows per pixel.
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
    group = jnp.asarray(head.group).astype(jnp.float32)
    faces_viewer = (s_area < 0).astype(jnp.float32)
    row = jnp.concatenate(
        [
            constant, gx, gy, normal[:, :2], stretch[:, None], faces_viewer[:, None],
            group[:, None],
        ],
        -1,
    )  # fmt: skip
    # Without the barriers XLA:CPU fuses table and gather into every consumer and repeats them per
    # pixel and channel (25 ms instead of 12 ms).
    row = stored(row)
    hit = raster.triangle_YX >= 0
    r = row[jnp.maximum(raster.triangle_YX, 0)]
    r = jax.lax.optimization_barrier(r)
    grid = image_grid(size, size)
    value = r[..., 0:4] + r[..., 4:8] * grid[..., :1] + r[..., 8:12] * grid[..., 1:]
    g = jnp.where(hit, r[..., 16], -1.0).astype(jnp.int32)
    flow = value[..., :2]

    # Seen in the portrait: facing the viewer there and not behind something nearer. The depth test
    # uses the farthest of a 2x2 block, else slopes stipple.
    half = size * 0.5
    p = jnp.clip((flow + 1.0) * half - 0.5, 0, size - 1)
    x0, y0 = p[..., 0].astype(jnp.int32), p[..., 1].astype(jnp.int32)
    x1, y1 = jnp.minimum(x0 + 1, size - 1), jnp.minimum(y0 + 1, size - 1)
    z = source.depth
    near = jnp.minimum(jnp.minimum(z[y0, x0], z[y0, x1]), jnp.minimum(z[y1, x0], z[y1, x1]))
    inside = (jnp.abs(flow) < 1.0).all(-1)
    visible = hit & inside & (r[..., 15] > 0.5) & (value[..., 2] > near - 0.25)

    interior = _is_interior(g)
    eyeball = g >= 7
    one = jnp.float32
    iris = eyeball.astype(one) * jnp.clip((IRIS_RAD - value[..., 3]) / 0.06 + 0.5, 0.0, 1.0)
    maps = jnp.stack(
        [
            interior.astype(one), (g == 5).astype(one), (g == 6).astype(one), (g == 4).astype(one),
            eyeball.astype(one), iris, (g == 0).astype(one), jnp.where(hit, r[..., 12], 0.0),
            jnp.where(hit, r[..., 13], 0.0), hit.astype(one), visible.astype(one),
            jnp.where(hit, r[..., 14], 0.0),
        ],
        -1,
    )  # fmt: skip
    flow = _fill_background(head, source, placed, flow, hit, grid, placement, rot)
    skin = ((g == 0) | (g == 1))[..., None].astype(one)
    blink = jnp.clip(pose.expression[jnp.asarray(heads.BLINKS)], 0.0, 1.0)
    lashes = lash_line(head, placed, blink, placement[2], size=size)
    return DriverGeometry(flow, maps, skin, lashes * hit[..., None])


CONTOUR_PX = (0.75, 2.25)  # jumps of the flow where a contour begins and where it is certain


def contour(flow_YX2: Array) -> Array:
    """Weight 0..1 of being beside a contour ``(Y, X, 1)``: there the flow jumps.

    Neighbouring pixels of one surface come from neighbouring places of the portrait; those that do
    not show two surfaces (or one at a grazing angle).
    """
    size = flow_YX2.shape[0]
    shift = (flow_YX2 - image_grid(size, size)) * (size * 0.5)
    low, high = CONTOUR_PX

    def weight(jump: Array) -> Array:
        return jnp.clip((jnp.abs(jump).max(-1) - low) / (high - low), 0.0, 1.0)

    down, right = weight(shift[1:] - shift[:-1]), weight(shift[:, 1:] - shift[:, :-1])
    none_y, none_x = jnp.zeros((1, size)), jnp.zeros((size, 1))
    beside = jnp.maximum(jnp.concatenate([down, none_y]), jnp.concatenate([none_y, down]))
    beside = jnp.maximum(beside, jnp.concatenate([right, none_x], 1))
    return jnp.maximum(beside, jnp.concatenate([none_x, right], 1))[..., None]


def _fill_background(head, source, placed, flow, hit, grid, placement, rot):
    """Where no mesh is: hair follows the skull, the rest of the picture stays; in between, blend.

    The skull's motion is the affine map that best explains its vertices (least squares); its weight
    falls from 1 on the head (hair included) to 0 before the border of the crop, and down the neck.
    """
    base = jnp.asarray(head.base)
    w = ((base[:, 2] > -4.0) & (base[:, 2] < 5.0) & (base[:, 1] > -4.0)).astype(jnp.float32)[
        :, None
    ]
    ones = jnp.ones_like(w)
    a = jnp.concatenate([placed[:, :2], ones], -1)
    normal_33 = (a * w).T @ a + 1e-4 * jnp.eye(3)
    affine_32 = _solve3(normal_33, (a * w).T @ source.placed[:, :2])
    skull = jnp.concatenate([grid, jnp.ones_like(grid[..., :1])], -1) @ affine_32

    def radius(center, unit, rotation_33):
        right, up = rotation_33[:2, 0], rotation_33[:2, 1]
        q = (grid - center) / unit * jnp.array([1.0, -1.0])
        x = q @ right / jnp.maximum(jnp.sum(right**2), 0.3)
        y = q @ up / jnp.maximum(jnp.sum(up**2), 0.3)
        return x, y

    x, y = radius(placement[:2], placement[2], rot)
    rho = jnp.sqrt((x / 10.5) ** 2 + ((y - 2.5) / 13.0) ** 2)
    smooth = lambda t: t * t * (3 - 2 * t)  # noqa: E731
    weight = 1.0 - smooth(jnp.clip((rho - 1.0) / 0.75, 0.0, 1.0))
    weight = weight * smooth(jnp.clip((y + 16.0) / 7.5, 0.0, 1.0))
    border = 1.0 - jnp.abs(grid).max(-1)
    weight = (weight * smooth(jnp.clip((border - 0.02) / 0.14, 0.0, 1.0)))[..., None]
    background = grid + weight * (skull - grid)
    # The mesh ends at the neck inside the picture: fade its flow out at the border as well.
    edge = smooth(jnp.clip((border - 0.02) / 0.10, 0.0, 1.0))[..., None]
    flow = grid + edge * (flow - grid)
    return jnp.where(hit[..., None], flow, background)


def _solve3(a_33, b_3n):
    """Cramer's rule; a LAPACK call per frame would leave the fused program."""
    c0 = jnp.cross(a_33[1], a_33[2])
    c1 = jnp.cross(a_33[2], a_33[0])
    c2 = jnp.cross(a_33[0], a_33[1])
    adjugate = jnp.stack([c0, c1, c2], -1)
    return adjugate @ b_3n / (a_33[0] @ c0)


def silhouette(
    head: Head, placed_V3: Array, *, size: int, classes: tuple[int, ...], margin: float
) -> Array:
    """Soft mask (size, size) of a placed head grown by ``margin`` (of the crop's half side).

    The head model has no hair: a margin of 0.15 to 0.2 takes most of it in.
    """
    coarse = min(size, 64)  # the edge is soft and the margin wide
    drawn = rasterise(placed_V3, head.triangles, size=coarse, classes=classes)
    mask = (drawn.triangle_YX >= 0).astype(jnp.float32)
    pixels = round(margin * coarse / 2)
    mask = dilate(mask, pixels) if pixels else mask
    return jnp.clip(jax.image.resize(mask, (size, size), "linear"), 0.0, 1.0)


def dilate(mask_YX: Array, pixels: int) -> Array:
    """Grows a 0/1 mask by ``pixels`` in every direction."""
    k = 2 * pixels + 1
    return jax.lax.reduce_window(mask_YX, -jnp.inf, jax.lax.max, (k, k), (1, 1), "SAME")
