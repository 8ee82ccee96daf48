"""Losses that keep pose, dynamics and identity apart (VASA-1 3.1, MegaPortraits 3.1, EMOPortraits).

Codes are rows (B, K) and every cosine is taken over K, per example. Which pictures and codes belong
together is decided in one place, ``train/passes.py``; this file only measures.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cosine(a_BK: jax.Array, b_BK: jax.Array) -> jax.Array:
    """Cosine similarity of the rows, (B,); defined (0) for a row of zeros."""
    norm = jnp.sqrt(jnp.square(a_BK).sum(-1) + 1e-12) * jnp.sqrt(jnp.square(b_BK).sum(-1) + 1e-12)
    return (a_BK * b_BK).sum(-1) / norm


def contrastive(
    code_BK: jax.Array,
    positive_BK: jax.Array,
    negative_BK: jax.Array,
    *,
    scale: float = 5.0,
    margin: float = 0.2,
) -> jax.Array:
    """Cosine contrastive loss (B,): -log of the positive's share among positive and negative.

    ``code`` is the dynamics code read back from a rendered picture, ``positive`` that of the frame
    which drove it, ``negative`` that of another person's frame. The margin lowers the positive
    alone, as in the author's code: subtracted from both, as printed, it would cancel.
    """
    positive = scale * (cosine(code_BK, positive_BK) - margin)
    negative = scale * cosine(code_BK, negative_BK)
    return jax.nn.softplus(negative - positive)


def mismatch(
    source_BK: jax.Array, driver_BK: jax.Array, differ_B: jax.Array, *, margin: float = 0.5
) -> jax.Array:
    """Codes of two different expressions of one person may not agree beyond ``margin``: (B,).

    The source's code is a constant. ``differ_B`` is 0 where both frames show the same expression,
    for which the loss would be wrong, and 1 where they do not (EMOPortraits section 4.1).
    """
    alike = cosine(jax.lax.stop_gradient(source_BK), driver_BK)
    return differ_B * jax.nn.relu(alike - margin)


def canonical_distance(volume_BZYXC: jax.Array, other_BZYXC: jax.Array) -> jax.Array:
    """L1 (B,) between canonical volumes of two frames of one person, the second one a constant.

    Keeps expression out of the volume (EMOPortraits section 4.2).
    """
    other = jax.lax.stop_gradient(other_BZYXC).astype(jnp.float32)
    return jnp.abs(volume_BZYXC.astype(jnp.float32) - other).mean((1, 2, 3, 4))
