"""Holes of a picture, or of a flow, filled from around: push-pull over a pyramid."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array

COARSE = 4  # px of a cell, for what has no detail


def push_pull(image_YXC: Array, hole_YX: Array, *, levels: int = 7) -> Array:
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


def cells(image: Array) -> Array:
    """Sums over cells of ``COARSE`` x ``COARSE`` pixels, (Y, X) or (Y, X, C)."""
    rows = sum(image[k::COARSE] for k in range(COARSE))
    return jnp.asarray(sum(rows[:, k::COARSE] for k in range(COARSE)))


def hole_of(sure_ZW: Array) -> Array:
    """The share of a cell that is a hole, from the sum of its pixels that are sure (0 or 1)."""
    return 1.0 - jnp.minimum(sure_ZW, 1.0)


def coarse(image_YXC: Array, sure_YX: Array) -> tuple[Array, Array]:
    """Cells' means of what is sure (0 or 1), and the share of each that is a hole, (Z, W)."""
    sure = cells(sure_YX)
    mean = cells(image_YXC * sure_YX[..., None]) / jnp.maximum(sure, 1e-6)[..., None]
    return mean, hole_of(sure)


def spread(cells: Array) -> Array:
    """Cells (Z, W) or (Z, W, C) to pixels, linear between the cells' centres."""
    return _along(_along(cells, 0), 1)


def _along(cells: Array, axis: int) -> Array:
    """``COARSE`` times as many along an axis.

    By shifts: ``jax.image.resize`` multiplies by a matrix that is nearly all zeros.
    """
    n = cells.shape[axis]
    edges = [(1, 1) if k == axis else (0, 0) for k in range(cells.ndim)]
    near = jnp.pad(cells, edges, mode="edge")
    before, here, after = (jax.lax.slice_in_dim(near, k, k + n, axis=axis) for k in range(3))
    parts = []
    for k in range(COARSE):
        at = (k + 0.5) / COARSE - 0.5  # of a cell, from its centre
        parts.append((1 - abs(at)) * here + abs(at) * (before if at < 0 else after))
    shape = list(cells.shape)
    shape[axis] *= COARSE
    return jnp.stack(parts, axis + 1).reshape(shape)
