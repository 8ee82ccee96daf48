"""Samplers: a pure step with a declared order, on one shared ``lax.scan``.

A denoiser is any function ``(x, t) -> x0``; t is a scalar. With ``l = log(alpha / sigma)`` and
``h = l_s - l_t`` for a step from t to s < t, the exact solution of the probability-flow ODE is

    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) x0                       (x0 held constant)

which is DDIM with eta = 0 (Song et al. 2021; first order). ``DpmPP2M`` extrapolates x0 linearly in
l from the step before (Lu et al. 2022b, arXiv 2211.01095, algorithm 2), ``Heun`` averages the
velocities at both ends in the variable ``x / alpha`` over ``sigma / alpha`` (Karras et al. 2022).

Add a sampler: one class with ``order``, ``init`` and ``__call__``, and one entry in ``SAMPLERS``;
the tests then run on it at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from vasa_jax.diffusion.schedules import Schedule

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]
NoiseFn = Callable[[jax.Array], jax.Array]  # step index -> standard normal noise shaped like x


class State(NamedTuple):
    """What a sampler carries: the sample, and whatever memory a multistep method needs."""

    x: jax.Array
    memory: Any = ()


class Step(Protocol):
    """One step from time t to s. ``order``: the error falls as ``num_steps ** -order``;
    0 marks a stochastic method. ``evaluations``: calls of the denoiser per step."""

    @property
    def order(self) -> int: ...

    @property
    def evaluations(self) -> int: ...

    def init(self, x: jax.Array) -> State: ...

    def __call__(
        self,
        schedule: Schedule,
        state: State,
        denoise: Denoiser,
        t: jax.Array,
        s: jax.Array,
        noise: jax.Array,
    ) -> State: ...


def _half_log_snr(schedule: Schedule, t: jax.Array) -> jax.Array:
    return 0.5 * schedule.log_snr(t)


@dataclasses.dataclass(frozen=True)
class Ddim:
    """DDIM. ``eta`` 0 is the deterministic ODE step, 1 the ancestral sampler of DDPM; any value
    between mixes them (Song et al. 2021, equation 16). A tuple gives every number of the last
    axis its own: any diagonal of the family keeps the marginals."""

    eta: float | tuple[float, ...] = 0.0
    evaluations: int = 1

    @property
    def order(self) -> int:
        return 1 if self.eta == 0 else 0

    def init(self, x: jax.Array) -> State:
        return State(x)

    def __call__(self, schedule, state, denoise, t, s, noise):
        x = state.x
        x0 = denoise(x, t)
        a_t, s_t, a_s, s_s = (
            schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s),
        )  # fmt: skip
        eps = (x - a_t * x0) / s_t
        if self.eta == 0:
            return State(a_s * x0 + s_s * eps)
        # The deviation of q(x_s | x_t, x0) is s_s sqrt(1 - (a_t s_s / (a_s s_t))^2); eta scales it.
        ratio = jnp.clip(1.0 - jnp.square(a_t * s_s / (a_s * s_t)), 0.0, 1.0)
        eta = jnp.asarray(self.eta, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        deviation = jnp.minimum(eta * s_s * jnp.sqrt(ratio), s_s)
        rest = jnp.sqrt(jnp.maximum(s_s * s_s - deviation * deviation, 0.0))
        return State(a_s * x0 + rest * eps + deviation * noise)


@dataclasses.dataclass(frozen=True)
class DpmPP2M:
    """DPM-Solver++ 2M: second order with one evaluation a step."""

    order: int = 2
    evaluations: int = 1

    def init(self, x: jax.Array) -> State:
        # Memory: the last x0, and the last step in l (0 means there was none).
        return State(x, (jnp.zeros_like(x), jnp.zeros((), x.dtype)))

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        x, (last_x0, last_h) = state.x, state.memory
        x0 = denoise(x, t)
        h = _half_log_snr(schedule, s) - _half_log_snr(schedule, t)
        weight = jnp.where(last_h > 0, h / (2.0 * jnp.where(last_h > 0, last_h, 1.0)), 0.0)
        d = x0 + weight * (x0 - last_x0)
        ratio = schedule.sigma(s) / schedule.sigma(t)
        return State(ratio * x - schedule.alpha(s) * jnp.expm1(-h) * d, (x0, h.astype(x.dtype)))


@dataclasses.dataclass(frozen=True)
class Euler:
    """Euler's method for ``d(x / alpha) / d(sigma / alpha)``; equal to DDIM with eta = 0, kept as
    the plain reference the exponential form must agree with."""

    order: int = 1
    evaluations: int = 1

    def init(self, x: jax.Array) -> State:
        return State(x)

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        y, slope, step = _scaled(schedule, state.x, denoise, t, s)
        return State(schedule.alpha(s) * (y + step * slope))


@dataclasses.dataclass(frozen=True)
class Heun:
    """Heun's method in the same variables: second order, two evaluations a step."""

    order: int = 2
    evaluations: int = 2

    def init(self, x: jax.Array) -> State:
        return State(x)

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        y, slope, step = _scaled(schedule, state.x, denoise, t, s)
        guess = schedule.alpha(s) * (y + step * slope)
        _, slope_end, _ = _scaled(schedule, guess, denoise, s, s)
        return State(schedule.alpha(s) * (y + step * 0.5 * (slope + slope_end)))


def _scaled(schedule, x, denoise, t, s):
    """``x / alpha``, its slope over ``sigma / alpha`` at t, and the step to s in that variable."""
    y = x / schedule.alpha(t)
    ratio_t = jnp.exp(-_half_log_snr(schedule, t))
    ratio_s = jnp.exp(-_half_log_snr(schedule, s))
    return y, (y - denoise(x, t)) / ratio_t, ratio_s - ratio_t


SAMPLERS: dict[str, Step] = {
    "ddim": Ddim(),
    "ancestral": Ddim(eta=1.0),
    "euler": Euler(),
    "heun": Heun(),
    "dpmpp_2m": DpmPP2M(),
}


def sample(
    step: Step,
    schedule: Schedule,
    denoise: Denoiser,
    x: jax.Array,
    times: jax.Array,
    noise_fn: NoiseFn | None = None,
) -> jax.Array:
    """The sample at ``times[-1]`` from the state ``x`` at ``times[0]``.

    The last thing a caller wants is data, so finish with a grid that ends at t = 0, where the
    remaining noise is that of the schedule's largest log-SNR. ``noise_fn(i)`` gives the noise of
    step i; without one, stochastic samplers raise ValueError.
    """
    if noise_fn is None:
        if step.order == 0:
            raise ValueError("a stochastic sampler needs noise_fn")

        def noise_fn(i: jax.Array) -> jax.Array:
            del i
            return jnp.zeros_like(x)

    times = times.astype(x.dtype)

    def body(state: State, inputs):
        i, t, s = inputs
        return step(schedule, state, denoise, t, s, noise_fn(i)), None

    index = jnp.arange(times.shape[0] - 1)
    state, _ = jax.lax.scan(body, step.init(x), (index, times[:-1], times[1:]))
    return state.x
