"""Identity as a loss: the angle between recognition features of two pictures of one person."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vasa_jax.face.find.recognition import aligned_crop, five_points


def identity_distance(
    embed: Callable[[jax.Array], jax.Array],
    prediction_BYXC: jax.Array,
    target_BYXC: jax.Array,
    landmarks_B: jax.Array,
    target_landmarks_B: jax.Array | None = None,
) -> jax.Array:
    """1 - cosine per example (B,); each picture is aligned by landmarks (B, 478, 2) px.

    One set of landmarks serves both pictures where the prediction is to look like the target. The
    cross-identity loss of VASA-1 section 3.1 compares a portrait with its reenactment by somebody
    else, whose landmarks lie elsewhere: pass the portrait's own as ``target_landmarks_B``.
    ``embed`` maps aligned 112 px crops to unit vectors (``face.recognition.load_mobileface``).
    """
    points = five_points(landmarks_B)
    own = points if target_landmarks_B is None else five_points(target_landmarks_B)
    a = embed(aligned_crop(prediction_BYXC, points))
    b = jax.lax.stop_gradient(embed(aligned_crop(target_BYXC, own)))
    return 1.0 - jnp.sum(a * b, -1)
