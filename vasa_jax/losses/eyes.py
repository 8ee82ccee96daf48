"""Gaze and lids: a loss on the eyes alone, which cover too few pixels to matter otherwise.

The published gaze loss compares features of nets distilled from gaze and blink estimators
(MegaPortraits B.5), whose weights are not available. Here both eyes are cut out by their corners
and compared by pixels and by the early features of the perceptual net: iris, white and lid line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vasa_jax.nn.warp import image_grid, sample_image

CORNERS = ((33, 133), (362, 263))  # of each eye, left to right in the picture (MediaPipe)
SIZE = 48  # px of a cut-out
WIDTH = 1.8  # of a cut-out, in distances between the corners
DEPTHS = 3  # features up to relu3_3


def eye_crops(images_BYXC: jax.Array, landmarks_BP2: jax.Array) -> jax.Array:
    """Both eyes, upright: (2 B, SIZE, SIZE, C), all left ones first.

    ``landmarks_BP2`` are 478 points in pixels, pixel centres at half-integers.
    """
    sizes = jnp.array([images_BYXC.shape[2], images_BYXC.shape[1]], jnp.float32)
    flat = image_grid(SIZE, SIZE)
    parts = []
    for left, right in CORNERS:
        a, b = landmarks_BP2[:, left, :2], landmarks_BP2[:, right, :2]
        along = (b - a) * (WIDTH / 2)
        across = jnp.stack([-along[:, 1], along[:, 0]], -1)
        axes_B22 = jnp.stack([along, across], 1)  # rows: the cut-out's x and y in pixels
        middle = ((a + b) / 2).reshape(-1, 1, 1, 2)
        pixels = middle + jnp.einsum("yxk,bkc->byxc", flat, axes_B22)
        points = pixels / (sizes / 2).reshape(1, 1, 1, 2) - 1.0
        parts.append(jax.vmap(sample_image)(images_BYXC, points))
    return jnp.concatenate(parts)


def eye_distance(
    prediction_BYXC: jax.Array,
    target_BYXC: jax.Array,
    landmarks_BP2: jax.Array,
    features: Callable[[Any, jax.Array], list[jax.Array]] | None = None,
    weights: Any = None,
) -> jax.Array:
    """Mean L1 of both eyes (B,), plus that of their features where a net is given."""
    a = eye_crops(prediction_BYXC, landmarks_BP2)
    b = jax.lax.stop_gradient(eye_crops(target_BYXC, landmarks_BP2))
    distance = jnp.abs(a - b).mean((1, 2, 3))
    if features is not None:
        pairs = zip(features(weights, a)[:DEPTHS], features(weights, b)[:DEPTHS], strict=True)
        distance = distance + jnp.stack([jnp.abs(x - y).mean((1, 2, 3)) for x, y in pairs]).mean(0)
    return distance.reshape(2, -1).mean(0)
