"""The portrait's layers seen from the driver's pose, and paint where the portrait shows nothing.

Two kinds of skin are not in a photograph: that under open eyes and mouth (``skin_layer``, once per
portrait) and that on the far side of a face that turns (``warp_layers``, every frame). Both are
painted from the skin around them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.geometry import MAP_NAMES, DriverGeometry
from vasa_jax.face.raster import dilate
from vasa_jax.nn.warp import sample_image

_OPENING_DILATION = 2
COARSE = 4  # px of a cell in which the far side's paint is mixed; it has no detail
# log2 of how much a patch is stretched, where it begins to be painted over and where it all is:
# at a grazing angle a photograph shows skin, hair and background in one pixel.
STRETCH = (1.0, 2.2)
FEW = 0.01  # of the face; so little is not painted
_MAPS = [MAP_NAMES.index(name) for name in ("face", "visible", "stretch")]


def inpaint(image_YXC: Array, hole_YX: Array, *, levels: int = 7) -> Array:
    """Fills holes from their surroundings by push-pull over a pyramid; shapes are powers of two."""
    weight = 1.0 - hole_YX[..., None]
    color = image_YXC * weight
    stack = [(color, weight)]
    for _ in range(levels):
        c, w = stack[-1]
        y, x, n = c.shape
        if y < 2:
            break
        c = c.reshape(y // 2, 2, x // 2, 2, n).sum((1, 3))
        w = w.reshape(y // 2, 2, x // 2, 2, 1).sum((1, 3))
        norm = jnp.maximum(w, 1e-6)
        full = jnp.minimum(w, 1.0)
        stack.append((c / norm * full, full))
    c, w = stack[-1]
    filled = c / jnp.maximum(w, 1e-6)
    for c, w in reversed(stack[:-1]):
        y, x, n = c.shape
        up = jax.image.resize(filled, (y, x, n), "linear")
        filled = c + (1.0 - w) * up
    return filled


def skin_layer(image_YXC: Array, opening_YX2: Array) -> Array:
    """The portrait's skin as if eyes and mouth were shut: openings painted over from around."""
    unit = image_YXC.shape[0] // 128
    hole = dilate(opening_YX2.max(-1), _OPENING_DILATION * max(unit // 2, 1))
    return inpaint(image_YXC, hole)


def warp_layers(layers_YX6: Array, geometry: DriverGeometry) -> Array:
    """Portrait and skin layer as the driver sees them, (Y, X, 6).

    Where the portrait does not show a part of the face, or only at a grazing angle, it is painted
    with what the visible face around it looks like. Scalp and neck are left to the nets: nobody
    knows what hair looks like from the other side.
    """
    moved = sample_image(layers_YX6, geometry.flow)
    face, seen, stretch = (geometry.maps[..., k, None] for k in _MAPS)
    low, high = STRETCH
    known = face * seen * jnp.clip((high - stretch) / (high - low), 0.0, 1.0)
    unseen = face - known

    def painted(moved: Array) -> Array:
        # Mixed of what is sure; and from the skin layer, which has no openings to run from.
        sure = face * seen * (stretch < low)
        weight, color = _cells(sure), _cells(moved[..., 3:] * sure)
        paint = inpaint(color / jnp.maximum(weight, 1e-6), 1.0 - jnp.minimum(weight[..., 0], 1.0))
        paint = _spread(_spread(paint, 0), 1)
        return moved + unseen * (jnp.concatenate([paint, paint], -1) - moved)

    # Most frames are turned too little to need it, and it takes time.
    return jax.lax.cond(unseen.sum() > FEW * face.sum(), painted, lambda moved: moved, moved)


def _cells(image_YXC: Array) -> Array:
    """Sums over cells of ``COARSE`` x ``COARSE`` pixels."""
    rows = sum(image_YXC[k::COARSE] for k in range(COARSE))
    return jnp.asarray(sum(rows[:, k::COARSE] for k in range(COARSE)))


def _spread(cells_YXC: Array, axis: int) -> Array:
    """``COARSE`` times as many along an axis, linear between the cells' centres.

    By shifts: ``jax.image.resize`` multiplies by a matrix that is nearly all zeros.
    """
    n = cells_YXC.shape[axis]
    edges = [(1, 1) if k == axis else (0, 0) for k in range(3)]
    near = jnp.pad(cells_YXC, edges, mode="edge")
    before, here, after = (jax.lax.slice_in_dim(near, k, k + n, axis=axis) for k in range(3))
    parts = []
    for k in range(COARSE):
        at = (k + 0.5) / COARSE - 0.5  # of a cell, from its centre
        parts.append((1 - abs(at)) * here + abs(at) * (before if at < 0 else after))
    shape = list(cells_YXC.shape)
    shape[axis] *= COARSE
    return jnp.stack(parts, axis + 1).reshape(shape)
