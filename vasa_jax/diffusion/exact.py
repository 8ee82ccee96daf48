"""Data whose denoiser is known exactly: what a sampler is proven on.

For x0 from a mixture of Gaussians, ``x_t = alpha x0 + sigma eps`` is a mixture too, so the best
denoiser ``E[x0 | x_t]`` is closed form, and so is where the probability-flow ODE takes a point: the
flow of a Gaussian scales about its mean along the axes of its covariance, and any flow in one
dimension keeps the quantile, ``F_s(x_s) = F_t(x_t)``.

``measure_order`` and ``moments`` compare a sampler with that. Nothing here uses the formulas of
``samplers.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion.samplers import Step, sample
from vasa_jax.diffusion.schedules import Schedule


class Data(Protocol):
    """A distribution of x0 with its exact denoiser and its exact ODE map."""

    def denoise(self, schedule: Schedule, x: jax.Array, t: jax.Array) -> jax.Array: ...

    def flow(self, schedule: Schedule, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """``N(mean, covariance)`` in D dimensions; points are ``(..., D)``."""

    mean: tuple[float, ...] = (1.5, -0.5)
    covariance: tuple[tuple[float, ...], ...] = ((0.16, 0.1), (0.1, 0.5))

    def _axes(self, dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
        variances, axes = np.linalg.eigh(np.asarray(self.covariance))
        return (
            jnp.asarray(self.mean, dtype),
            jnp.asarray(variances, dtype),
            jnp.asarray(axes, dtype),
        )

    def _scale(self, x: jax.Array, factors: jax.Array, axes: jax.Array) -> jax.Array:
        along = jnp.einsum("...i,ij->...j", x, axes)
        return jnp.einsum(
            "...j,ij->...i", jax.vmap(jnp.multiply, (-1, 0), -1)(along, factors), axes
        )

    def denoise(self, schedule: Schedule, x: jax.Array, t: jax.Array) -> jax.Array:
        mean, variances, axes = self._axes(x.dtype)
        a, s = schedule.alpha(t), schedule.sigma(t)
        gain = a * variances / (a * a * variances + s * s)
        mean = jnp.broadcast_to(mean, x.shape)
        return mean + self._scale(x - a * mean, gain, axes)

    def flow(self, schedule: Schedule, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        mean, variances, axes = self._axes(x.dtype)
        mean = jnp.broadcast_to(mean, x.shape)

        def spread(u: jax.Array) -> jax.Array:
            return jnp.sqrt(schedule.alpha(u) ** 2 * variances + schedule.sigma(u) ** 2)

        moved = self._scale(x - schedule.alpha(t) * mean, spread(s) / spread(t), axes)
        return schedule.alpha(s) * mean + moved


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the line, in which every number of ``x`` is a point of its own."""

    weights: tuple[float, ...] = (0.35, 0.65)
    means: tuple[float, ...] = (-1.0, 0.8)
    deviations: tuple[float, ...] = (0.5, 0.4)

    def _components(self, schedule: Schedule, x: jax.Array, t: jax.Array):
        """Each ``(..., C)``: w, m, d; x less the component's centre at t; its variance there."""
        shape = (*x.shape, len(self.means))
        w, m, d = (
            jnp.broadcast_to(jnp.asarray(values, x.dtype), shape)
            for values in (self.weights, self.means, self.deviations)
        )
        a, s = schedule.alpha(t), schedule.sigma(t)
        return w, m, d, x[..., None] - a * m, jnp.square(a * d) + jnp.square(s), a

    def denoise(self, schedule: Schedule, x: jax.Array, t: jax.Array) -> jax.Array:
        w, m, d, away, variance, a = self._components(schedule, x, t)
        logits = jnp.log(w) - 0.5 * jnp.log(variance) - 0.5 * jnp.square(away) / variance
        means = m + a * jnp.square(d) / variance * away
        return (jax.nn.softmax(logits, axis=-1) * means).sum(-1)

    def _quantile(self, schedule: Schedule, x: jax.Array, t: jax.Array) -> jax.Array:
        w, _, _, away, variance, _ = self._components(schedule, x, t)
        return (w * jax.scipy.stats.norm.cdf(away / jnp.sqrt(variance))).sum(-1)

    def flow(self, schedule: Schedule, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        wanted = self._quantile(schedule, x, t)

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high)
            below = self._quantile(schedule, middle, s) < wanted
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        ends = (jnp.full_like(x, -20.0), jnp.full_like(x, 20.0))
        return jax.lax.fori_loop(0, 60, halve, ends)[0]


def uneven_grid(schedule: Schedule, num_steps: int, first: float, last: float) -> jax.Array:
    """Falling times ``(num_steps + 1,)`` from ``first`` to ``last``: in log-SNR, every other step
    is twice as long.

    A multistep method with a wrong weight for the ratio of two steps is right on an even grid, and
    nearly right on any smooth one.
    """
    parts = np.resize([1.0, 2.0], num_steps)
    done = np.concatenate([[0.0], np.cumsum(parts)]) / parts.sum()
    low, high = schedule.log_snr(jnp.asarray(first)), schedule.log_snr(jnp.asarray(last))
    return schedule.time(low + jnp.asarray(done, low.dtype) * (high - low))


def measure_order(
    step: Step,
    schedule: Schedule,
    data: Data,
    counts: Sequence[int] = (32, 64, 128, 256),
    first: float = 0.9,
    last: float = 0.1,
) -> tuple[float, np.ndarray]:
    """The slope at which the error of a deterministic sampler falls, and the error per count.

    In float64, on ``uneven_grid``; the times keep away from both ends, so that it is the method
    that is measured and not how little there is to do where the data or the noise is all.
    """
    with jax.enable_x64(True):
        x = jnp.stack([jnp.linspace(-1.5, 1.5, 9), jnp.linspace(0.5, -1.0, 9)], axis=-1)
        # All counts in one compilation: short grids begin with steps of no length.
        grids = [uneven_grid(schedule, count, first, last) for count in counts]
        times = jnp.stack([jnp.pad(t, (max(counts) + 1 - len(t), 0), "edge") for t in grids])

        @jax.jit
        def error(times: jax.Array) -> jax.Array:
            got = sample(step, schedule, lambda x, t: data.denoise(schedule, x, t), x, times)
            return jnp.abs(got - data.flow(schedule, x, times[0], times[-1])).mean()

        errors = np.array([error(t) for t in times])
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0]), errors


def moments(
    step: Step, schedule: Schedule, data: Gaussian, times: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean ``(D,)`` and covariance ``(D, D)`` of the samples at ``times[-1]``, without sampling.

    A Gaussian's denoiser is affine, hence so is the sample in the first state and in all noises;
    its Jacobian gives the covariance exactly. The first state has the moments that it should.
    """
    dim, count = len(data.mean), times.shape[0] - 1
    zeros = jnp.zeros((1 + count, dim), times.dtype)
    a, s = schedule.alpha(times[0]), schedule.sigma(times[0])
    covariance = a * a * jnp.asarray(data.covariance, times.dtype) + s * s * jnp.eye(
        dim, dtype=times.dtype
    )
    root = jnp.linalg.cholesky(covariance)
    mean = jnp.asarray(data.mean, times.dtype)

    def run(noise: jax.Array) -> jax.Array:
        return sample(
            step, schedule, lambda x, t: data.denoise(schedule, x, t), a * mean + root @ noise[0],
            times, lambda i: noise[1 + i],
        )  # fmt: skip

    centre, push = jax.linearize(jax.jit(run), zeros)
    # One row of (directions, D) for each number of noise.
    slope = jax.jit(jax.vmap(push))(
        jnp.eye(zeros.size, dtype=zeros.dtype).reshape(-1, *zeros.shape)
    )
    return centre, slope.T @ slope
