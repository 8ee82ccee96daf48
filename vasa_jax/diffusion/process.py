"""Adding noise, and translating what a network predicts into x0: the one place that knows how.

``x_t = alpha x0 + sigma eps``. Whatever a network predicts is a mixture ``p x0 + q eps`` whose
coefficients depend on t alone, so two linear equations give x0 back:

    x0        p = 1       q = 0        the paper, equation 1
    epsilon   p = 0       q = 1        Ho et al. 2020
    velocity  p = -sigma  q = alpha    Salimans & Ho 2022 (arXiv 2202.00512)
    flow      p = -1      q = 1        Lipman et al. 2023: the straight path's slope

    x0 = (q x - sigma output) / (q alpha - sigma p)

Samplers only ever see x0.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from vasa_jax.diffusion.schedules import Schedule

Prediction = Literal["x0", "epsilon", "velocity", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("x0", "epsilon", "velocity", "flow")


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
    """The x0 that a network's ``output`` at state ``x`` and time ``t`` means.

    ``x`` and ``output`` are ``(..., D)`` alike; ``t`` a scalar or one per leading index.
    """
    if prediction == "x0":
        return output
    a, s = schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x))
    p, q = _mixture(a, s, prediction)
    return (q * x - s * output) / (q * a - s * p)


def from_x0(
    schedule: Schedule, x: jax.Array, t: jax.Array, x0: jax.Array, prediction: Prediction
) -> jax.Array:
    """The output whose meaning is ``x0``: the inverse of ``to_x0``, same shapes."""
    if prediction == "x0":
        return x0
    p, q = _mixture(schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x)), prediction)
    return p * x0 + q * epsilon(schedule, x, t, x0)


def _mixture(alpha: jax.Array, sigma: jax.Array, prediction: Prediction) -> tuple[Any, Any]:
    """``(p, q)`` such that the network's output is ``p x0 + q eps``."""
    if prediction == "epsilon":
        return 0.0, 1.0
    if prediction == "velocity":
        return -sigma, alpha
    if prediction == "flow":
        return -1.0, 1.0
    raise ValueError(f"prediction is one of {', '.join(PREDICTIONS)}, not {prediction!r}")


def epsilon(schedule: Schedule, x: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
    """The noise in ``x`` when its clean part is ``x0``."""
    a, s = schedule.alpha(expand(t, x)), schedule.sigma(expand(t, x))
    return (x - a * x0) / s


def path_slope(schedule: Schedule, x: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
    """``dx / dt = alpha' x0 + sigma' eps`` of the probability-flow ODE, shaped like ``x``.

    The derivatives come from the schedule itself, so a new schedule has nothing to declare.
    """
    t = expand(t, x)
    _, alpha_rate = jax.jvp(schedule.alpha, (t,), (jnp.ones_like(t),))
    _, sigma_rate = jax.jvp(schedule.sigma, (t,), (jnp.ones_like(t),))
    return alpha_rate * x0 + sigma_rate * epsilon(schedule, x, t, x0)
