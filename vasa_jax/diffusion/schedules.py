"""How much signal and how much noise a state at time t holds: ``x_t = alpha x0 + sigma eps``.

``Cosine`` (Nichol & Dhariwal 2021; in log-SNR form Salimans & Ho 2022, arXiv 2202.00512)::

    theta(t) = theta_0 + t (theta_1 - theta_0)     alpha = cos theta     sigma = sin theta
    log_snr  = log(alpha^2 / sigma^2) = -2 log tan theta

with ``theta_0, theta_1`` set by the log-SNR at t = 0 and t = 1, so that both ends are finite.
``Linear`` is the straight path of flow matching (Lipman et al. 2023): ``alpha = 1 - t, sigma = t``,
clipped likewise. Everything is closed form; no table of betas.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp


class Schedule(Protocol):
    """Signal and noise as functions of t, and the inverse of the log-SNR."""

    def alpha(self, t: jax.Array) -> jax.Array: ...

    def sigma(self, t: jax.Array) -> jax.Array: ...

    def log_snr(self, t: jax.Array) -> jax.Array: ...

    def time(self, log_snr: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Variance-preserving cosine schedule."""

    log_snr_max: float = 15.0  # at t = 0
    log_snr_min: float = -15.0  # at t = 1

    def _theta(self, t: jax.Array) -> jax.Array:
        # atan(exp(-l / 2)) is theta at log-SNR l.
        lo = jnp.arctan(jnp.exp(-0.5 * self.log_snr_max))
        hi = jnp.arctan(jnp.exp(-0.5 * self.log_snr_min))
        return lo + t * (hi - lo)

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.cos(self._theta(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.sin(self._theta(t))

    def log_snr(self, t: jax.Array) -> jax.Array:
        return -2.0 * jnp.log(jnp.tan(self._theta(t)))

    def time(self, log_snr: jax.Array) -> jax.Array:
        lo, hi = self._theta(jnp.zeros_like(log_snr)), self._theta(jnp.ones_like(log_snr))
        return (jnp.arctan(jnp.exp(-0.5 * log_snr)) - lo) / (hi - lo)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """Straight path between data and noise (flow matching), kept away from both ends."""

    margin: float = 1e-4

    def _s(self, t: jax.Array) -> jax.Array:
        return self.margin + (1.0 - 2.0 * self.margin) * t

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 - self._s(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        return self._s(t)

    def log_snr(self, t: jax.Array) -> jax.Array:
        return 2.0 * (jnp.log1p(-self._s(t)) - jnp.log(self._s(t)))

    def time(self, log_snr: jax.Array) -> jax.Array:
        s = jax.nn.sigmoid(-0.5 * log_snr)
        return (s - self.margin) / (1.0 - 2.0 * self.margin)


SCHEDULES = {"cosine": Cosine, "linear": Linear}
