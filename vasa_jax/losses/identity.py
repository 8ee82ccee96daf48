"""Identity as a loss: the angle between recognition features of two pictures of one person."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vasa_jax.face.recognition import aligned_crop, five_points


def identity_distance(
    embed: Callable[[jax.Array], jax.Array],
    prediction_BYXC: jax.Array,
    target_BYXC: jax.Array,
    landmarks_B: jax.Array,
) -> jax.Array:
    """1 - cosine per example (B,); both pictures are aligned by the same landmarks (B, 478, 2) px.

    VASA-1 section 3.1 uses this between a portrait and its reenactment; ``embed`` maps aligned
    112 px crops to unit vectors (``face.recognition.load_mobileface``).
    """
    points = five_points(landmarks_B)
    a = embed(aligned_crop(prediction_BYXC, points))
    b = jax.lax.stop_gradient(embed(aligned_crop(target_BYXC, points)))
    return 1.0 - jnp.sum(a * b, -1)
