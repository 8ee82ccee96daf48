"""Adversarial losses of stage 1: hinge for both sides, and feature matching (paper facts 2.4)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def discriminator_hinge(
    real_scores: Sequence[jax.Array], fake_scores: Sequence[jax.Array]
) -> jax.Array:
    """Mean over scales of max(0, 1 - real) + max(0, 1 + fake), (); scores are (B, y, x, 1)."""
    terms = [
        jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean()
        for real, fake in zip(real_scores, fake_scores, strict=True)
    ]
    return jnp.stack(terms).mean()


def generator_hinge(fake_scores: Sequence[jax.Array]) -> jax.Array:
    """Mean over scales of -score, (); the picture behind the scores must not be detached."""
    return jnp.stack([-fake.mean() for fake in fake_scores]).mean()


def feature_matching(
    fake_features: Sequence[Sequence[jax.Array]], real_features: Sequence[Sequence[jax.Array]]
) -> jax.Array:
    """Mean L1 between the discriminator's block outputs, (); the real ones are constants."""
    terms = [
        jnp.abs(a.astype(jnp.float32) - jax.lax.stop_gradient(b).astype(jnp.float32)).mean()
        for fake, real in zip(fake_features, real_features, strict=True)
        for a, b in zip(fake, real, strict=True)
    ]
    return jnp.stack(terms).mean()
