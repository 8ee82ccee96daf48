"""Time grids: ``num_steps + 1`` falling times from 1 (noise) to 0 (data)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vasa_jax.diffusion.schedules import Schedule


def uniform(schedule: Schedule, num_steps: int) -> jax.Array:
    """Equal steps in t."""
    del schedule
    return jnp.linspace(1.0, 0.0, num_steps + 1, dtype=jnp.float32)


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
    "log_snr": log_snr_uniform,
    "karras": karras,
}
