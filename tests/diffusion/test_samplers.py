"""Every sampler of the table against data whose denoiser and flow are known exactly.

Tests run over ``SAMPLERS``, so a new entry is proven, or fails, the moment it is listed.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vasa_jax.diffusion import exact, samplers, times
from vasa_jax.diffusion.process import PREDICTIONS, corrupt, from_x0, to_x0
from vasa_jax.diffusion.schedules import Cosine, Linear

SAMPLERS = samplers.SAMPLERS
DETERMINISTIC = [n for n, s in SAMPLERS.items() if s.order > 0]
STOCHASTIC = [n for n, s in SAMPLERS.items() if s.order == 0]
PROCESSES = {"cosine": Cosine(), "linear": Linear()}
GAUSSIAN, MIXTURE = exact.Gaussian(), exact.Mixture()


def denoiser(data, schedule):
    return lambda x, t: data.denoise(schedule, x, t)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run(step, schedule, data, x, times, noise):
    """One compilation for all tests of the same sampler, process, data and shapes.

    ``noise`` is ``(steps, *x.shape)``.
    """
    return samplers.sample(
        step, schedule, denoiser(data, schedule), x, times, lambda i: noise[i]
    )  # fmt: skip


flow = jax.jit(lambda data, *arguments: data.flow(*arguments), static_argnums=(0, 1))


def some_noise(steps, x):
    return jnp.asarray(np.random.default_rng(0).normal(size=(steps, *x.shape)), x.dtype)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize(
    "process, data", [("cosine", GAUSSIAN), ("cosine", MIXTURE), ("linear", MIXTURE)]
)
def test_error_falls_with_the_declared_order(name, process, data):
    step = SAMPLERS[name]
    slope, errors = exact.measure_order(step, PROCESSES[process], data)
    assert abs(slope - step.order) < 0.15, (slope, errors)


def test_three_points_of_unipc_are_of_order_three_at_least():
    slope, errors = exact.measure_order(samplers.UniPC(points=3), Cosine(), MIXTURE)
    assert slope > samplers.UniPC(points=3).order - 0.15, (slope, errors)
    assert errors[0] < 1e-5  # two points: 6e-5


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_one_step_of_2m_after_a_step_of_another_length(ratio):
    """With an exact past the error of one step falls as its length to the third.

    Over a whole grid the ratio of two steps upside down is still of second order: the errors it
    makes telescope. So this looks at one step.
    """
    schedule, errors, lengths = Cosine(), [], np.array([0.2, 0.1, 0.05])
    step = SAMPLERS["dpmpp_2m"]
    with jax.enable_x64(True):
        x = jnp.linspace(-1.5, 1.5, 9)
        for h in lengths:  # in l, half the log-SNR
            middle = jnp.asarray(0.3)
            before, t, s = (
                schedule.time(2.0 * (middle + gap)) for gap in (-ratio * h, 0.0 * h, 1.0 * h)
            )
            past = flow(MIXTURE, schedule, x, t, before)
            memory = (MIXTURE.denoise(schedule, past, before), jnp.asarray(ratio * h))
            state = samplers.State(x, memory)
            got = step(schedule, state, denoiser(MIXTURE, schedule), t, s, jnp.zeros(9)).x
            errors.append(float(jnp.abs(got - flow(MIXTURE, schedule, x, t, s)).mean()))
    slope = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert abs(slope - 3) < 0.2, (slope, errors)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_mean_and_covariance_are_those_of_the_data(name):
    """The whole way from noise to data, exactly, through the Jacobian; no sampling error."""
    schedule = Cosine(log_snr_max=9.0, log_snr_min=-9.0)
    with jax.enable_x64(True):
        grid = times.uniform(schedule, 64).astype(jnp.float64)
        mean, covariance = exact.moments(SAMPLERS[name], schedule, GAUSSIAN, grid)
        a, s = schedule.alpha(grid[-1]), schedule.sigma(grid[-1])
        true = a * a * jnp.asarray(GAUSSIAN.covariance) + s * s * jnp.eye(2)
        # Variances are 0.13 and 0.53; the methods of first order are off by a tenth of that.
        first_order = isinstance(SAMPLERS[name], samplers.Ddim | samplers.Euler)
        np.testing.assert_allclose(
            mean, a * jnp.asarray(GAUSSIAN.mean), atol=0.02 if first_order else 1e-3
        )
        assert float(jnp.abs(covariance - true).max()) < (0.05 if first_order else 0.01)


@pytest.mark.parametrize(
    "name, order, process",
    [("ancestral", 1, Cosine()), ("dpmpp_2m_sde", 2, Cosine()), ("dpmpp_2m_sde", 2, Linear())],
)
def test_covariance_of_stochastic_samplers_converges(name, order, process):
    errors, counts = [], np.array([32, 96])
    with jax.enable_x64(True):
        for count in counts:
            grid = exact.uneven_grid(process, int(count), 0.9, 0.1)
            a, s = process.alpha(grid[-1]), process.sigma(grid[-1])
            true = a * a * jnp.asarray(GAUSSIAN.covariance) + s * s * jnp.eye(2)
            got = exact.moments(SAMPLERS[name], process, GAUSSIAN, grid)[1]
            errors.append(float(jnp.abs(got - true).max()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.2, (slope, errors)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_draw_from_a_mixture(name):
    schedule, count, steps = Cosine(), 20_000, 100
    x, noise = jnp.split(jax.random.normal(jax.random.key(0), (1 + steps, count)), [1])
    got = np.asarray(
        run(SAMPLERS[name], schedule, MIXTURE, x[0], times.uniform(schedule, steps), noise)
    )
    points = np.linspace(-2.0, 2.0, 25)
    true = scipy.stats.norm.cdf(
        (points[:, None] - np.array(MIXTURE.means)) / np.array(MIXTURE.deviations)
    ) @ np.array(MIXTURE.weights)
    # 0.0035 is the deviation of such a share of 20 000 draws.
    np.testing.assert_allclose((got[None] < points[:, None]).mean(1), true, atol=0.015)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("process", list(PROCESSES))
def test_one_step_gives_what_the_denoiser_gives(name, process):
    """From pure noise that is the mean of the data; only the last noise level remains."""
    schedule, x = PROCESSES[process], jnp.array([0.3, -0.8, 1.1])
    mean = float(np.dot(MIXTURE.weights, MIXTURE.means))
    got = run(SAMPLERS[name], schedule, MIXTURE, x, jnp.array([1.0, 0.0]), some_noise(1, x))
    np.testing.assert_allclose(got, mean, atol=4e-3)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("process", list(PROCESSES))
def test_data_that_is_one_point_is_hit_exactly(name, process):
    """A denoiser that always answers the same leaves no room for error, however few the steps."""
    schedule, x = PROCESSES[process], jnp.array([0.4, -1.3])
    point = exact.Mixture(weights=(1.0,), means=(0.7,), deviations=(0.0,))
    # The plain methods take chords of the cosine's circle; all others know its path.
    plain = isinstance(SAMPLERS[name], samplers.Euler | samplers.Heun) and process == "cosine"
    for grid in times.TIME_GRIDS.values():
        got = run(SAMPLERS[name], schedule, point, x, grid(schedule, 3), some_noise(3, x))
        np.testing.assert_allclose(got, 0.7, atol=0.06 if plain else 3e-3)


@pytest.mark.parametrize("name", [n for n in DETERMINISTIC if SAMPLERS[n].order > 1])
def test_at_few_steps_higher_order_is_no_worse_than_ddim(name):
    """On the grid that the product uses, at equal calls of the denoiser."""
    schedule, calls = Cosine(), 16

    def error(name):
        with jax.enable_x64(True):
            x, steps = jnp.linspace(-2.0, 2.0, 41), calls // SAMPLERS[name].evaluations
            grid = times.uniform(schedule, steps).astype(x.dtype)
            got = run(SAMPLERS[name], schedule, MIXTURE, x, grid, some_noise(steps, x))
            return float(jnp.abs(got - flow(MIXTURE, schedule, x, grid[0], grid[-1])).mean())

    assert error(name) < error("ddim")


@dataclasses.dataclass(frozen=True)
class Networks:
    """One network of each kind, a row of ``x`` (4, N) each, all of which know the mixture."""

    def denoise(self, schedule, x, t):
        rows = []
        for row, prediction in zip(x, PREDICTIONS, strict=True):
            output = from_x0(schedule, row, t, MIXTURE.denoise(schedule, row, t), prediction)
            rows.append(to_x0(schedule, row, t, output, prediction))
        return jnp.stack(rows)


@pytest.mark.parametrize(
    "name, process", [(n, "cosine") for n in SAMPLERS] + [("ddim", "linear"), ("unipc", "linear")]
)
def test_what_the_network_predicts_does_not_matter(name, process):
    """x0, epsilon, velocity and flow networks that know the same give the same samples."""
    schedule = PROCESSES[process]
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 2.0, 7)
        grid = times.uniform(schedule, 6).astype(x.dtype)
        noise = jnp.stack([some_noise(6, x)] * len(PREDICTIONS), axis=1)
        x = jnp.stack([x] * len(PREDICTIONS))
        expected, *others = run(SAMPLERS[name], schedule, Networks(), x, grid, noise)
        for got in others:
            np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_float32_is_close_to_float64(name):
    schedule, x = Cosine(), np.array([0.4, -1.3])
    grid = np.asarray(times.uniform(schedule, 20))
    noise = np.random.default_rng(0).normal(size=(20, 2))
    results = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            arrays = [
                jnp.asarray(v, jnp.float64 if wide else jnp.float32) for v in (x, grid, noise)
            ]
            results.append(np.asarray(run(SAMPLERS[name], schedule, MIXTURE, *arrays)))
    np.testing.assert_allclose(*results, atol=1e-3)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_step_of_no_length_changes_nothing(name):
    schedule = Cosine()
    step, x, t = SAMPLERS[name], jnp.array([0.3, -1.0]), jnp.float32(0.4)
    state = step(schedule, step.init(x), denoiser(MIXTURE, schedule), t, t, jnp.ones(2))
    np.testing.assert_allclose(state.x, x, atol=1e-5)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_trajectory_ends_in_the_sample_and_calls_are_counted_right(name):
    schedule, x = Cosine(), jnp.array([0.3, -1.0])
    calls, noise = 0, lambda i: jnp.full(2, 0.5)

    def denoise(x, t):
        nonlocal calls
        calls += 1
        return MIXTURE.denoise(schedule, x, t)

    arguments = (SAMPLERS[name], schedule, denoise, x, times.uniform(schedule, 5), noise)
    way = samplers.trajectory(*arguments)
    assert calls == SAMPLERS[name].evaluations  # traced once, by the scan
    assert way.shape == (6, 2)
    np.testing.assert_array_equal(way[0], x)
    np.testing.assert_array_equal(way[-1], samplers.sample(*arguments))


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_gradients_through_a_sampler_are_finite(name):
    schedule, x = Cosine(), jnp.array([0.3, -1.0])
    grid, noise = times.uniform(schedule, 4), some_noise(4, x)

    @jax.jit
    def slope(x):
        return jax.grad(lambda x: run(SAMPLERS[name], schedule, MIXTURE, x, grid, noise).sum())(x)

    assert np.isfinite(np.asarray(slope(x))).all()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_asks_for_noise(name):
    with pytest.raises(ValueError, match="noise_fn"):
        samplers.sample(SAMPLERS[name], Cosine(), lambda x, t: x, jnp.ones(2), jnp.ones(3))


def test_euler_on_the_straight_path_is_ddim():
    schedule, x = Linear(), jnp.array([0.3, -1.0])
    got, expected = (
        samplers.trajectory(
            SAMPLERS[name], schedule, denoiser(MIXTURE, schedule), x, times.uniform(schedule, 8)
        )
        for name in ("euler", "ddim")
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    "step",
    [samplers.Ddim(eta=0.3), samplers.Ddim(eta=0.7), samplers.DpmPP2M(eta=0.4)]
    + [SAMPLERS[name] for name in STOCHASTIC],
    ids=str,
)
def test_a_noisy_step_keeps_the_marginal(step):
    """With the true x0 as prediction, x_s must be N(alpha_s x0, sigma_s^2) given x0: exactly.

    The step is affine in x and the noise, so three calls give its coefficients.
    """
    schedule, x0 = Cosine(), jnp.array([1.1])
    with jax.enable_x64(True):
        t, s, x0 = jnp.asarray(0.6), jnp.asarray(0.5), x0.astype(jnp.float64)

        def run(x, noise):
            state = step.init(jnp.full_like(x0, x))
            return step(schedule, state, lambda x, t: x0, t, s, jnp.full_like(x0, noise)).x

        start = run(0.0, 0.0)
        from_x, from_noise = run(1.0, 0.0) - start, run(0.0, 1.0) - start
        np.testing.assert_allclose(
            from_x * schedule.alpha(t) * x0 + start, schedule.alpha(s) * x0, rtol=1e-9
        )
        variance = jnp.square(from_x * schedule.sigma(t)) + jnp.square(from_noise)
        np.testing.assert_allclose(variance, jnp.square(schedule.sigma(s)), rtol=1e-9)
        assert float(from_noise[0]) > 0.05


def test_an_eta_per_number_mixes_two_samplers():
    schedule, t, s = Cosine(), jnp.float32(0.6), jnp.float32(0.5)
    x, noise = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.9])
    both = samplers.Ddim(eta=(0.0, 1.0))
    got, ddim, ancestral = (
        step(schedule, samplers.State(x), denoiser(MIXTURE, schedule), t, s, noise).x
        for step in (both, samplers.Ddim(), samplers.Ddim(eta=1.0))
    )
    np.testing.assert_allclose(got, [ddim[0], ancestral[1]], rtol=1e-6)
    assert both.order == 0


def test_ancestral_step_is_the_posterior_of_ddpm():
    """Ho et al. 2020, equations 6-7, written with betas, against eta = 1."""
    schedule = Cosine()
    t, s = jnp.float32(0.5), jnp.float32(0.45)
    a_t2, a_s2 = schedule.alpha(t) ** 2, schedule.alpha(s) ** 2
    beta = 1 - a_t2 / a_s2
    x, x0, noise = jnp.float32(0.3), jnp.float32(1.1), jnp.float32(0.7)
    mean = (
        jnp.sqrt(a_s2) * beta / (1 - a_t2) * x0
        + jnp.sqrt(a_t2 / a_s2) * (1 - a_s2) / (1 - a_t2) * x
    )
    std = jnp.sqrt((1 - a_s2) / (1 - a_t2) * beta)
    step = SAMPLERS["ancestral"]
    got = step(schedule, samplers.State(x), lambda x, t: x0, t, s, noise).x
    np.testing.assert_allclose(got, mean + std * noise, atol=1e-4)


def test_the_first_step_of_the_sde_form_is_ancestral():
    schedule = Cosine()
    x, noise = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.9])
    got, expected = (
        step(schedule, step.init(x), denoiser(MIXTURE, schedule), *jnp.array([0.6, 0.5]), noise).x
        for step in (samplers.DpmPP2M(eta=1.0), samplers.Ddim(eta=1.0))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("process", list(PROCESSES))
def test_the_oracle_follows_the_score(process, data):
    """The exact flow against the ODE in the score form of Song et al. 2021 (VP and VE alike).

    dx/dt = (log alpha)' x - (g^2 / 2) score, with g^2 = 2 sigma^2 (log sigma / alpha)' and
    score = (alpha E[x0 | x] - x) / sigma^2.
    """
    schedule = PROCESSES[process]
    with jax.enable_x64(True):
        x, t, d = jnp.array([[0.3, -1.0], [0.7, 1.6]]), jnp.asarray(0.4), 1e-5
        rate = (flow(data, schedule, x, t, t + d) - flow(data, schedule, x, t, t - d)) / (2 * d)

        def log_alpha(t):
            return jnp.log(schedule.alpha(t))

        g2 = -jnp.square(schedule.sigma(t)) * jax.grad(schedule.log_snr)(t)
        score = (schedule.alpha(t) * data.denoise(schedule, x, t) - x) / schedule.sigma(t) ** 2
        np.testing.assert_allclose(rate, jax.grad(log_alpha)(t) * x - 0.5 * g2 * score, rtol=1e-6)


def test_the_oracle_denoises_best():
    """E[x0 | x] is what no other answer beats: the error is orthogonal to functions of x."""
    schedule, t = Cosine(), jnp.float32(0.45)
    key = jax.random.split(jax.random.key(3), 4)
    n = 50_000
    index = (jax.random.uniform(key[0], (n,)) > MIXTURE.weights[0]).astype(int)
    means, deviations = jnp.array(MIXTURE.means), jnp.array(MIXTURE.deviations)
    x0 = means[index] + deviations[index] * jax.random.normal(key[1], (n,))
    x = corrupt(schedule, x0, jax.random.normal(key[2], (n,)), t)
    error = x0 - MIXTURE.denoise(schedule, x, t)
    for power in range(4):
        assert abs(float((error * x**power).mean())) < 0.02, power


def test_declarations_are_frozen_and_hashable():
    """A sampler is a static argument of the compiled step."""
    for a, b in itertools.combinations(SAMPLERS.values(), 2):
        assert dataclasses.is_dataclass(a) and hash(a) is not None and a != b
