"""The dark line of the lashes where lids meet, drawn by geometry.

Shut eyes are told from half-open ones by that line, by people and by landmark detectors alike. An
open eye hides most of it, so no warp of the portrait can bring it, and at 256 px it is a pixel
wide: too little for a reconstruction loss to teach it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Head
from vasa_jax.nn.warp import image_grid

# Margins of the upper and the lower lid from the outer to the inner corner (MediaPipe).
UPPER = (
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
)
LOWER = ((263, 249, 390, 373, 374, 380, 381, 382, 362), (33, 7, 163, 144, 145, 153, 154, 155, 133))
TAPER = (0.6, 0.9, 1.0, 1.0, 1.0, 1.0, 0.9, 0.7, 0.3)  # thinner towards the nose
WIDTH_CM = 0.07  # standard deviation across the line
DARKNESS = 0.6  # share of light that the middle of the line swallows
BEGINS, CERTAIN = 0.45, 0.95  # shares of a blink


def lash_line(
    head: Head, placed_V3: jax.Array, blink_2: jax.Array, scale: Array, *, size: int
) -> jax.Array:
    """Share of light (Y, X) that the lashes of shut or closing eyes swallow.

    ``placed_V3`` as ``heads.place`` gives it, ``blink_2`` of the left and right eye in [0, 1],
    ``scale`` in crop units per cm. Zero while the eyes are open.
    """
    points = heads.landmarks(head, placed_V3)[:, :2]
    grid = image_grid(size, size)
    total = jnp.zeros((size, size))
    for side in (0, 1):
        blink = blink_2[side]
        # Shut lids meet between where a detector sees the upper and the lower one.
        upper, lower = points[jnp.array(UPPER[side])], points[jnp.array(LOWER[side])]
        line = upper + 0.5 * blink * (lower - upper)
        share = jnp.clip((blink - BEGINS) / (CERTAIN - BEGINS), 0.0, 1.0)

        def near(line: jax.Array) -> jax.Array:
            square, weight = _nearest(line, grid[..., 0], grid[..., 1])
            return weight * jnp.exp(-square / (2.0 * (WIDTH_CM * scale) ** 2))

        # Most eyes are open most of the time.
        drawn = jax.lax.cond(share > 0.0, near, lambda _: jnp.zeros((size, size)), line)
        total = jnp.maximum(total, share * share * drawn)
    return DARKNESS * total


def _nearest(line_P2: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared distance of points to a line and its ``TAPER`` at the nearest place of it.

    One segment after the other, on whole planes: arrays of (Y, X, segments, 2) took 25 ms a frame.
    """
    square, weight = jnp.full_like(x, jnp.inf), jnp.zeros_like(x)
    for k in range(len(TAPER) - 1):
        (ax, ay), (dx, dy) = line_P2[k], line_P2[k + 1] - line_P2[k]
        away_x, away_y = x - ax, y - ay
        t = (away_x * dx + away_y * dy) / jnp.maximum(dx * dx + dy * dy, 1e-9)
        t = jnp.clip(t, 0.0, 1.0)
        here = jnp.square(away_x - t * dx) + jnp.square(away_y - t * dy)
        weight = jnp.where(here < square, TAPER[k] + t * (TAPER[k + 1] - TAPER[k]), weight)
        square = jnp.minimum(square, here)
    return square, weight


def draw(image_BYXC: Array, line_BYX: Array) -> Array:
    """Pictures in [-1, 1] with that share of their light taken away."""
    return (image_BYXC + 1.0) * (1.0 - line_BYX[..., None]) - 1.0
