"""Adding noise, and translating what a network predicts into x0.

``x_t = alpha x0 + sigma eps``; a network may predict x0 (the paper, equation 1), eps, or the
velocity ``v = alpha eps - sigma x0`` (Salimans & Ho 2022). Samplers only ever see x0.
"""

from __future__ import annotations

from typing import Literal

import jax

from vasa_jax.diffusion.schedules import Schedule

Prediction = Literal["x0", "epsilon", "velocity"]


def expand(t: jax.Array, like: jax.Array) -> jax.Array:
    """``t`` with trailing axes of size one until it broadcasts against ``like`` from the left."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def corrupt(schedule: Schedule, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """The state at time ``t`` (scalar, or one per leading index of ``x0``)."""
    t = expand(t, x0)
    return schedule.alpha(t) * x0 + schedule.sigma(t) * noise


def to_x0(
    schedule: Schedule, x: jax.Array, t: jax.Array, output: jax.Array, prediction: Prediction
) -> jax.Array:
    """The x0 that a network's ``output`` at state ``x`` and time ``t`` means."""
    a, s = schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x))
    if prediction == "x0":
        return output
    if prediction == "epsilon":
        return (x - s * output) / a
    if prediction == "velocity":
        return (a * x - s * output) / (a * a + s * s)
    raise ValueError(f"prediction is x0, epsilon or velocity, not {prediction!r}")


def from_x0(
    schedule: Schedule, x: jax.Array, t: jax.Array, x0: jax.Array, prediction: Prediction
) -> jax.Array:
    """The output whose meaning is ``x0``: the inverse of ``to_x0``."""
    if prediction == "x0":
        return x0
    eps = epsilon(schedule, x, t, x0)
    if prediction == "epsilon":
        return eps
    a, s = schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x))
    return a * eps - s * x0


def epsilon(schedule: Schedule, x: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
    """The noise in ``x`` when its clean part is ``x0``."""
    a, s = schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x))
    return (x - a * x0) / s
