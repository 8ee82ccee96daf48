"""A triangle rasteriser inside XLA.

Every triangle tests a window of pixels from its corner on; a packed integer (quantised depth,
triangle number) is scattered with ``max`` into the picture, which is a z-buffer of fixed shape: no
loop, no second compilation, the same on CPU and GPU. Triangles are sorted by their size in this
picture, so that few have large windows.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.types import Array
from vasa_jax.face.head.head import Head
from vasa_jax.nn.stored import from_memory

# Rank of a triangle, largest first, and side in px at 256 of the window of it and those after it.
# Enough for heads of usual size in a crop; where one triangle does not fit, all windows grow by
# LARGE, and only what is larger still is cut.
WINDOWS = ((0, 36), (16, 22), (128, 16), (480, 12), (992, 9), (1840, 6), (3360, 3))
LARGE = 1.6
NUMBER_BITS = 13  # of a triangle's number, packed with 16 bits of depth
DEPTH_RANGE_CM = 40.0

_NUMBER = (1 << NUMBER_BITS) - 1


class Raster(NamedTuple):
    """Which triangle is seen at each pixel, -1 for none, and the corners it was drawn with."""

    triangle_YX: Array
    depth_YX: Array  # cm, -1e3 where nothing is


def rasterise(placed_V3: Array, triangles_F3: Array, *, size: int) -> Raster:
    """Nearest front-facing triangle per pixel of a ``size`` x ``size`` picture.

    ``placed_V3`` has X, Y in [-1, 1] and depth towards the viewer; F is at most 8192. Triangles
    that exceed the largest windows are cut.
    """
    assert len(triangles_F3) <= 1 << NUMBER_BITS
    corner_F32 = (placed_V3[:, :2][triangles_F3] + 1.0) * (size * 0.5)
    depth_F3 = placed_V3[:, 2][triangles_F3]
    extent = _pixels(corner_F32)
    # One number to be sorted: the largest first, those that cannot be seen last.
    number = jnp.arange(len(extent), dtype=jnp.int32)
    packed = -jnp.sort(-((extent << NUMBER_BITS) + number))
    order, extent = packed & _NUMBER, packed >> NUMBER_BITS
    starts, windows = zip(*(w for w in WINDOWS if w[0] < len(extent)), strict=True)
    usual, large = (
        [max(3, math.ceil(window * grown * size / 256.0)) for window in windows]
        for grown in (1.0, LARGE)
    )
    fits = jnp.all(extent[np.array(starts)] <= jnp.array(usual))
    first, maps = _edges(corner_F32[order], depth_F3[order])
    drawn = functools.partial(_scatter, first, maps, order, starts, size)
    key_YX = jax.lax.cond(fits, lambda: drawn(usual), lambda: drawn(large))
    hit = key_YX >= 0
    depth = ((key_YX >> NUMBER_BITS).astype(jnp.float32) / 65535.0 - 0.5) * DEPTH_RANGE_CM
    return Raster(
        triangle_YX=jnp.where(hit, key_YX & _NUMBER, -1),
        depth_YX=jnp.where(hit, depth, -1e3),
    )


def _pixels(corner_F32: Array) -> Array:
    """Larger side (F,) of each triangle's box in pixel centres; 0 if it cannot be seen."""
    low, high = corner_F32.min(1), corner_F32.max(1)
    sides = jnp.floor(high - 0.5) - jnp.ceil(low - 0.5) + 1.0
    b, c = corner_F32[:, 1] - corner_F32[:, 0], corner_F32[:, 2] - corner_F32[:, 0]
    seen = (b[:, 0] * c[:, 1] < c[:, 0] * b[:, 1]) & (sides.min(-1) > 0)
    return jnp.where(seen, jnp.minimum(sides.max(-1), 1023.0), 0.0).astype(jnp.int32)


def _edges(corner_F32: Array, depth_F3: Array) -> tuple[Array, Array]:
    """First pixel centre (2, F) of each triangle's window, and three affine maps (3, 3, F).

    The maps take (1, x, y), in pixels from that centre, to the weights of the second and the third
    corner, and to the quantised depth.
    """
    x, y, z = corner_F32[:, :, 0], corner_F32[:, :, 1], depth_F3
    first = jnp.ceil(corner_F32.min(1) - 0.5) + 0.5
    qx, qy = first[:, 0] - x[:, 0], first[:, 1] - y[:, 0]
    ux, uy, vx, vy = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0], x[:, 2] - x[:, 0], y[:, 2] - y[:, 0]
    area = ux * vy - vx * uy
    # y points down on the screen, so the outside of the mesh has negative area.
    front = area < -1e-9
    inverse = jnp.where(front, 1.0 / jnp.minimum(area, -1e-9), 0.0)

    def along(tx: Array, ty: Array) -> Array:
        """Of a weight that is 0 along the edge t and 1 at the remaining corner."""
        return jnp.stack([(qx * ty - qy * tx) * inverse, ty * inverse, -tx * inverse])

    second, third = along(vx, vy), along(-ux, -uy)
    scale = 65535.0 / DEPTH_RANGE_CM
    level = scale * ((z[:, 1] - z[:, 0]) * second + (z[:, 2] - z[:, 0]) * third)
    level = level.at[0].add(scale * z[:, 0] + 0.5 * 65535.0)
    second = second.at[0].set(jnp.where(front, second[0], -1e9))  # nowhere inside
    return first.T, jnp.stack([second, third, level])


def _scatter(
    first_2F: Array, maps_33F: Array, order_F: Array, starts: tuple[int, ...], size: int,
    windows: list[int],
) -> Array:  # fmt: skip
    """The z-buffer's packed numbers (Y, X), -1 where nothing is; triangles in order of size."""
    keys, pixels = [], []
    for begin, end, k in zip(starts, [*starts[1:], len(order_F)], windows, strict=True):
        # Triangles on the last axis: it vectorises whatever the window's size.
        right = jnp.arange(k, dtype=jnp.float32)[None, :, None]
        down = jnp.arange(k, dtype=jnp.float32)[:, None, None]
        px, py = first_2F[0, begin:end] + right, first_2F[1, begin:end] + down
        second, third, level = (m[0] + right * m[1] + down * m[2] for m in maps_33F[..., begin:end])
        inside = (second >= 0) & (third >= 0) & (second + third <= 1)
        inside &= (px < size) & (py < size) & (px > 0) & (py > 0)
        level = jnp.clip(level, 0, 65535).astype(jnp.int32)
        keys.append(jnp.where(inside, (level << NUMBER_BITS) + order_F[begin:end], -1))
        # Wherever it points when it is not inside, -1 changes nothing there; so the place does not
        # ask who is inside, and XLA does not work all that out a second time.
        pixels.append(
            jnp.clip(py.astype(jnp.int32) * size + px.astype(jnp.int32), 0, size * size - 1)
        )

    def scatter(keys: list[Array], pixels: list[Array]) -> Array:
        picture = jnp.full((size * size,), -1, jnp.int32)
        for key, pixel in zip(keys, pixels, strict=True):
            picture = picture.at[pixel.reshape(-1)].max(key.reshape(-1), mode="promise_in_bounds")
        return picture.reshape(size, size)

    return from_memory(scatter, keys, pixels)


def silhouette(head: Head, placed_V3: Array, *, size: int, margin: float) -> Array:
    """Soft mask (size, size) of a placed head grown by ``margin`` (of the crop's half side).

    The head model has no hair: a margin of 0.15 to 0.2 takes most of it in.
    """
    coarse = min(size, 64)  # the edge is soft and the margin wide
    drawn = rasterise(placed_V3, head.triangles, size=coarse)
    mask = (drawn.triangle_YX >= 0).astype(jnp.float32)
    pixels = round(margin * coarse / 2)
    mask = dilate(mask, pixels) if pixels else mask
    return jnp.clip(jax.image.resize(mask, (size, size), "linear"), 0.0, 1.0)


def dilate(mask_YX: Array, pixels: int) -> Array:
    """Grows a 0/1 mask by ``pixels`` in every direction."""
    k = 2 * pixels + 1
    # One axis after the other: XLA:CPU looks at every number of a window.
    for window in ((k, 1), (1, k)):
        mask_YX = jax.lax.reduce_window(mask_YX, -jnp.inf, jax.lax.max, window, (1, 1), "SAME")
    return mask_YX
