"""Time grids: ``num_steps + 1`` falling times from 1 (noise) to 0 (data)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion.schedules import Schedule


def uniform(schedule: Schedule, num_steps: int) -> jax.Array:
    """Equal steps in t."""
    del schedule
    return jnp.linspace(1.0, 0.0, num_steps + 1, dtype=jnp.float32)


def trailing(schedule: Schedule, num_steps: int, levels: int = 1000) -> jax.Array:
    """Equal steps, spaced from the noise end, among the ``levels`` times k / levels of a ladder.

    For networks trained on a ladder of times, as distilled students are (Lin et al. 2024,
    arXiv 2305.08891: a grid must begin at pure noise). Where time is continuous, spacing from the
    noise end is ``uniform`` itself.
    """
    del schedule
    if num_steps > levels:
        raise ValueError(f"a ladder of {levels} times has no {num_steps} steps")
    rungs = np.round(np.linspace(levels, 0, num_steps + 1))
    return jnp.asarray(rungs / levels, jnp.float32)


def log_snr_uniform(schedule: Schedule, num_steps: int) -> jax.Array:
    """Equal steps in log-SNR: the natural grid of exponential integrators."""
    lo, hi = schedule.log_snr(jnp.float32(1.0)), schedule.log_snr(jnp.float32(0.0))
    return _pinned(schedule.time(jnp.linspace(lo, hi, num_steps + 1)))


def karras(schedule: Schedule, num_steps: int, rho: float = 7.0) -> jax.Array:
    """Equal steps in ``(sigma / alpha)**(1 / rho)`` (Karras et al. 2022, equation 5)."""
    hi = jnp.exp(-0.5 * schedule.log_snr(jnp.float32(1.0)) / rho)
    lo = jnp.exp(-0.5 * schedule.log_snr(jnp.float32(0.0)) / rho)
    ratio = jnp.linspace(hi, lo, num_steps + 1) ** rho
    return _pinned(schedule.time(-2.0 * jnp.log(ratio)))


def _pinned(t: jax.Array) -> jax.Array:
    return t.at[0].set(1.0).at[-1].set(0.0).astype(jnp.float32)


TimeGrid = Callable[[Schedule, int], jax.Array]
TIME_GRIDS: dict[str, TimeGrid] = {
    "uniform": uniform,
    "trailing": trailing,
    "log_snr": log_snr_uniform,
    "karras": karras,
}
