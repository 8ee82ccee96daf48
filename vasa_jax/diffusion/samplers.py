"""Samplers: a pure step with a declared order, on one shared ``lax.scan``.

A denoiser is any function ``(x, t) -> x0``; t is a scalar. With ``l = log(alpha / sigma)`` and
``h = l_s - l_t`` for a step from t to s < t, the exact solution of the probability-flow ODE is

    x_s = (sigma_s / sigma_t) x_t + alpha_s integral_0^h e^(u - h) x0(l_t + u) du               (1)

and the samplers differ in what they take for x0 between the two times:

    DDIM             constant: the integral is 1 - e^-h      Song et al. 2021, arXiv 2010.02502
    DPM-Solver++ 2M  a line through this x0 and the last     Lu et al. 2022b, arXiv 2211.01095
    UniPC            a polynomial through the last p; once   Zhao et al. 2023, arXiv 2302.04867
                     x0 at s is known, the step is done
                     again with it

``Euler`` and ``Heun`` know nothing of (1): they integrate ``dx / dt`` (``process.path_slope``) as
it stands, which is what flow matching does, and on ``alpha = 1, sigma = t`` is Karras et al. 2022
(algorithm 1). They are the plain reference for the others.

The stochastic forms add noise and take out as much of the old: ``Ddim(eta)`` by Song's family, of
which ``eta`` 1 is the ancestral sampler of DDPM (Ho et al. 2020), ``DpmPP2M(eta)`` by solving the
reverse SDE whose noise is ``eta`` times that of ancestral sampling (Lu et al. 2022b, for eta 1).

The step into t = 0, the data, is first order in every method. There l runs away, so there is
nothing to extrapolate in, and ``(x - alpha x0) / sigma`` would amplify the network's errors.

Add a sampler: one class with ``order``, ``evaluations``, ``init`` and ``__call__``, and one entry
in ``SAMPLERS``; the tests then run on it at once. README.md has a recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion.process import epsilon, path_slope
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


def _ddim(schedule: Schedule, x: jax.Array, x0: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
    """The step that is exact while x0 is constant."""
    return schedule.alpha(s) * x0 + schedule.sigma(s) * epsilon(schedule, x, t, x0)


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
        if self.eta == 0:
            return State(_ddim(schedule, x, x0, t, s))
        a_t, s_t, a_s, s_s = (
            schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s),
        )  # fmt: skip
        # The deviation of q(x_s | x_t, x0) is s_s sqrt(1 - (a_t s_s / (a_s s_t))^2); eta scales it.
        ratio = jnp.clip(1.0 - jnp.square(a_t * s_s / (a_s * s_t)), 0.0, 1.0)
        eta = jnp.asarray(self.eta, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        deviation = jnp.minimum(eta * s_s * jnp.sqrt(ratio), s_s)
        rest = jnp.sqrt(jnp.maximum(s_s * s_s - deviation * deviation, 0.0))
        return State(a_s * x0 + rest * epsilon(schedule, x, t, x0) + deviation * noise)


@dataclasses.dataclass(frozen=True)
class DpmPP2M:
    """DPM-Solver++ 2M: second order with one evaluation a step.

    ``eta`` above 0 is its SDE form: the old noise decays by ``e^(-eta h)`` more than the ODE asks,
    and new noise of variance ``sigma_s^2 (1 - e^(-2 eta h))`` takes its place.
    """

    eta: float = 0.0
    evaluations: int = 1

    @property
    def order(self) -> int:
        return 2 if self.eta == 0 else 0

    def init(self, x: jax.Array) -> State:
        # Memory: the last x0, and the last step in l (0 means there was none).
        return State(x, (jnp.zeros_like(x), jnp.zeros((), x.dtype)))

    def __call__(self, schedule, state, denoise, t, s, noise):
        x, (last_x0, last_h) = state.x, state.memory
        x0 = denoise(x, t)
        h = _half_log_snr(schedule, s) - _half_log_snr(schedule, t)
        extrapolate = (last_h > 0) & (s > 0)
        weight = jnp.where(extrapolate, h / (2.0 * jnp.where(last_h > 0, last_h, 1.0)), 0.0)
        d = x0 + weight * (x0 - last_x0)
        ratio = jnp.exp(-self.eta * h) * schedule.sigma(s) / schedule.sigma(t)
        new = ratio * x - schedule.alpha(s) * jnp.expm1(-(1.0 + self.eta) * h) * d
        if self.eta:
            variance = jnp.maximum(-jnp.expm1(-2.0 * self.eta * h), 0.0)
            new = new + schedule.sigma(s) * jnp.sqrt(variance) * noise
        return State(new, (x0, h.astype(x.dtype)))


@dataclasses.dataclass(frozen=True)
class UniPC:
    """UniPC in x0 with ``B(h) = e^-h - 1``: one evaluation a step serves twice.

    x0 at t first corrects the step that led to t, then predicts the step to s. ``points`` values
    of x0 predict (p in the paper), one more corrects, so the order is ``points + 1``; the first
    steps have fewer and are of lower order.
    """

    points: int = 2
    evaluations: int = 1

    @property
    def order(self) -> int:
        # Above 3 the first step, corrected with two values only, would decide.
        return min(self.points + 1, 3)

    def init(self, x: jax.Array) -> State:
        # Memory: the corrected sample at the last time and sigma there; the last ``points`` x0,
        # newest first; and the step in l that followed each (0: there was none).
        outputs = jnp.zeros((self.points, *x.shape), x.dtype)
        return State(x, (x, jnp.ones((), x.dtype), outputs, jnp.zeros((self.points,), x.dtype)))

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        guess, (base, base_sigma, old, gaps) = state.x, state.memory
        x0 = denoise(guess, t)
        known = jnp.cumprod(gaps > 0).sum()  # values of x0 before this one
        gap = jnp.where(gaps > 0, gaps, 1.0)  # 1: unused, but no division by zero

        # The step that led here again, from (1): old[0] at its beginning, x0 at its end.
        before = [-gap[1 : 1 + k].sum() for k in range(1, self.points)]
        choices = [guess]
        for count in range(1, self.points + 1):
            values, places = [x0, *old[1:count]], [gap[0], *before[: count - 1]]
            change = schedule.alpha(t) * _integral(gap[0], old[0], values, places)
            choices.append(schedule.sigma(t) / base_sigma * base + change)
        x = _choose(known, choices)

        # The next step: x0 at its beginning, older values before it.
        h = _half_log_snr(schedule, s) - _half_log_snr(schedule, t)
        before = [-gap[: 1 + k].sum() for k in range(self.points - 1)]
        choices = []
        for count in range(self.points):
            change = schedule.alpha(s) * _integral(h, x0, [*old[:count]], before[:count])
            choices.append(schedule.sigma(s) / schedule.sigma(t) * x + change)
        new = _choose(jnp.where(s > 0, jnp.minimum(known, self.points - 1), 0), choices)
        outputs = jnp.concatenate([x0[None], old[:-1]])
        gaps = jnp.concatenate([h[None].astype(gaps.dtype), gaps[:-1]])
        return State(new, (x, schedule.sigma(t).astype(x.dtype), outputs, gaps))


def _choose(index: jax.Array, choices: Sequence[jax.Array]) -> jax.Array:
    result = choices[0]
    for i, choice in enumerate(choices[1:], 1):
        result = jnp.where(index == i, choice, result)
    return result


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def _integral(
    h: jax.Array, x0: jax.Array, values: Sequence[jax.Array], places: Sequence[jax.Array]
) -> jax.Array:
    """The integral of (1), of the polynomial through ``x0`` at u = 0 and ``values`` at ``places``.

    By Gauss-Legendre, because the recurrence for these integrals cancels in float32. With a single
    value it is the paper's 1/2, which is as accurate as a line can be.
    """
    whole = -jnp.expm1(-h)
    if not values:
        return whole * x0
    if len(values) == 1:
        return whole * (x0 + 0.5 * h / places[0] * (values[0] - x0))
    u = h * jnp.asarray(0.5 * (_NODES + 1.0), h.dtype)
    measure = h * jnp.asarray(0.5 * _WEIGHTS, h.dtype) * jnp.exp(u - h)
    result = whole * x0
    for k, value in enumerate(values):
        basis = u / places[k]
        for j, place in enumerate(places):
            if j != k:
                basis = basis * (u - place) / (places[k] - place)
        result = result + (measure * basis).sum() * (value - x0)
    return result


@dataclasses.dataclass(frozen=True)
class Euler:
    """Euler's method for ``dx / dt``; on the straight path of flow matching the same as DDIM."""

    order: int = 1
    evaluations: int = 1

    def init(self, x: jax.Array) -> State:
        return State(x)

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        x0 = denoise(state.x, t)
        plain = state.x + (s - t) * path_slope(schedule, state.x, t, x0)
        return State(jnp.where(s > 0, plain, _ddim(schedule, state.x, x0, t, s)))


@dataclasses.dataclass(frozen=True)
class Heun:
    """Heun's method for ``dx / dt``: second order, two evaluations a step."""

    order: int = 2
    evaluations: int = 2

    def init(self, x: jax.Array) -> State:
        return State(x)

    def __call__(self, schedule, state, denoise, t, s, noise):
        del noise
        x0 = denoise(state.x, t)
        slope = path_slope(schedule, state.x, t, x0)
        guess = state.x + (s - t) * slope
        slope_end = path_slope(schedule, guess, s, denoise(guess, s))
        second = state.x + (s - t) * 0.5 * (slope + slope_end)
        return State(jnp.where(s > 0, second, _ddim(schedule, state.x, x0, t, s)))


SAMPLERS: dict[str, Step] = {
    "ddim": Ddim(),
    "ancestral": Ddim(eta=1.0),
    "euler": Euler(),
    "heun": Heun(),
    "dpmpp_2m": DpmPP2M(),
    "dpmpp_2m_sde": DpmPP2M(eta=1.0),
    "unipc": UniPC(),
}


def sample(
    step: Step,
    schedule: Schedule,
    denoise: Denoiser,
    x: jax.Array,
    times: jax.Array,
    noise_fn: NoiseFn | None = None,
) -> jax.Array:
    """The sample at ``times[-1]`` from the state ``x`` at ``times[0]``, shaped like ``x``.

    The last thing a caller wants is data, so finish with a grid that ends at t = 0, where the
    remaining noise is that of the schedule's largest log-SNR. ``noise_fn(i)`` gives the noise of
    step i; without one, stochastic samplers raise ValueError.
    """
    return _scan(step, schedule, denoise, x, times, noise_fn, keep=False)[0]


def trajectory(
    step: Step,
    schedule: Schedule,
    denoise: Denoiser,
    x: jax.Array,
    times: jax.Array,
    noise_fn: NoiseFn | None = None,
) -> jax.Array:
    """``sample`` with every state on its way: ``(len(times), *x.shape)``, beginning with ``x``."""
    kept = _scan(step, schedule, denoise, x, times, noise_fn, keep=True)[1]
    return jnp.concatenate([x[None], kept])


def _scan(step, schedule, denoise, x, times, noise_fn, *, keep):
    if noise_fn is None:
        if step.order == 0:
            raise ValueError("a stochastic sampler needs noise_fn")

        def noise_fn(i: jax.Array) -> jax.Array:
            del i
            return jnp.zeros_like(x)

    times = times.astype(x.dtype)

    def body(state: State, inputs):
        i, t, s = inputs
        state = step(schedule, state, denoise, t, s, noise_fn(i))
        return state, state.x if keep else None

    index = jnp.arange(times.shape[0] - 1)
    state, kept = jax.lax.scan(body, step.init(x), (index, times[:-1], times[1:]))
    return state.x, kept
