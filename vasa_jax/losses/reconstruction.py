"""Pixel losses of stage 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def weighted_l1(
    prediction_BYXC: jax.Array, target_BYXC: jax.Array, weight_BYX1: jax.Array
) -> jax.Array:
    """Mean absolute error per example (B,), pixels weighted; weights need not sum to one."""
    error = jnp.abs(prediction_BYXC - target_BYXC).mean(-1, keepdims=True) * weight_BYX1
    return error.sum((1, 2, 3)) / jnp.maximum(weight_BYX1.sum((1, 2, 3)), 1e-6)


def on_foreground(image_BYXC: jax.Array, mask_BYX1: jax.Array) -> jax.Array:
    """The picture on grey (0 in [-1, 1]): what lies outside of the mask cannot be told apart.

    The full stage 1 encodes portraits this way and compares pictures this way where more than the
    face is compared (``train/volumetric.py`` says which); without it training is unstable and the
    nets waste themselves on backgrounds (MegaPortraits section 3.1; paper facts 4.1).
    """
    return image_BYXC * mask_BYX1
