"""Oracle: for Gaussian data the denoiser and the ODE's map are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.diffusion import samplers, times
from vasa_jax.diffusion.process import corrupt, from_x0, to_x0
from vasa_jax.diffusion.schedules import Cosine, Linear

MEAN, STD = 1.5, 0.4
SCHEDULES = [Cosine(log_snr_max=9.0, log_snr_min=-9.0), Linear(margin=1e-2)]


def exact_denoiser(schedule):
    """E[x0 | x_t] for x0 ~ N(MEAN, STD^2)."""

    def denoise(x, t):
        a, s = schedule.alpha(t), schedule.sigma(t)
        gain = a * STD**2 / (a**2 * STD**2 + s**2)
        return MEAN + gain * (x - a * MEAN)

    return denoise


def exact_map(schedule, x, t, s):
    """The probability-flow ODE keeps the quantile: x = a MEAN + sqrt(a^2 STD^2 + s^2) z."""

    def spread(u):
        return jnp.sqrt(schedule.alpha(u) ** 2 * STD**2 + schedule.sigma(u) ** 2)

    z = (x - schedule.alpha(t) * MEAN) / spread(t)
    return schedule.alpha(s) * MEAN + spread(s) * z


def error(step, schedule, n):
    x = jnp.linspace(-2.0, 2.0, 9)
    grid = times.log_snr_uniform(schedule, n).astype(x.dtype)
    got = samplers.sample(step, schedule, exact_denoiser(schedule), x, grid)
    return float(jnp.abs(got - exact_map(schedule, x, grid[0], grid[-1])).mean())


DETERMINISTIC = [n for n, s in samplers.SAMPLERS.items() if s.order > 0]


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
def test_error_falls_with_the_declared_order(name, schedule):
    step = samplers.SAMPLERS[name]
    with jax.enable_x64(True):
        counts = np.array([32, 64, 128, 256])
        errors = [error(step, schedule, int(n)) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - step.order) < 0.15, (slope, errors)


@pytest.mark.parametrize("name", list(samplers.SAMPLERS))
def test_samples_have_the_data_distribution(name):
    schedule = Cosine()
    x = jax.random.normal(jax.random.key(0), (20_000,))
    got = samplers.sample(
        samplers.SAMPLERS[name], schedule, exact_denoiser(schedule), x,
        times.uniform(schedule, 100),
        lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(1), i), x.shape),
    )  # fmt: skip
    assert abs(float(got.mean()) - MEAN) < 0.01
    assert abs(float(got.std()) - STD) < 0.02


@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_ddim_keeps_the_marginal_for_any_eta(eta):
    schedule = Cosine()
    key = jax.random.key(2)
    x0 = MEAN + STD * jax.random.normal(key, (200_000,))
    t, s = jnp.float32(0.6), jnp.float32(0.58)
    x = corrupt(schedule, x0, jax.random.normal(jax.random.fold_in(key, 1), x0.shape), t)
    noise = jax.random.normal(jax.random.fold_in(key, 2), x0.shape)
    # With the true x0 as prediction the step draws from q(x_s | x_t, x0): exact marginal.
    step = samplers.Ddim(eta=eta)
    got = step(schedule, samplers.State(x), lambda x, t: x0, t, s, noise).x
    a, sd = schedule.alpha(s), schedule.sigma(s)
    assert abs(float(got.mean() - a * MEAN)) < 0.01
    assert abs(float(got.std() - jnp.sqrt(a**2 * STD**2 + sd**2))) < 0.005


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
    step = samplers.SAMPLERS["ancestral"]
    got = step(schedule, samplers.State(x), lambda x, t: x0, t, s, noise).x
    np.testing.assert_allclose(got, mean + std * noise, atol=1e-4)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_step_of_no_length_changes_nothing(name):
    schedule = Cosine()
    step, x, t = samplers.SAMPLERS[name], jnp.array([0.3, -1.0]), jnp.float32(0.4)
    state = step(schedule, step.init(x), exact_denoiser(schedule), t, t, jnp.zeros(2))
    np.testing.assert_allclose(state.x, x, atol=1e-5)


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "velocity"])
@pytest.mark.parametrize("schedule", [Cosine(), Linear()], ids=["cosine", "linear"])
def test_predictions_translate_there_and_back(prediction, schedule):
    key = jax.random.key(0)
    x0, eps = jax.random.normal(key, (2, 4, 3))
    t = jnp.array([0.1, 0.4, 0.7, 0.9])
    x = corrupt(schedule, x0, eps, t)
    output = from_x0(schedule, x, t, x0, prediction)
    np.testing.assert_allclose(to_x0(schedule, x, t, output, prediction), x0, atol=2e-4)
    if prediction == "velocity":
        a, s = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        np.testing.assert_allclose(output, a * eps - s * x0, atol=2e-4)


@pytest.mark.parametrize("schedule", [Cosine(), Linear()], ids=["cosine", "linear"])
def test_log_snr_is_closed_form_and_invertible(schedule):
    t = jnp.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(schedule.time(schedule.log_snr(t)), t, atol=1e-5)
    np.testing.assert_allclose(
        schedule.log_snr(t), 2 * jnp.log(schedule.alpha(t) / schedule.sigma(t)), atol=1e-4
    )


def test_cosine_preserves_variance_and_reaches_its_ends():
    schedule = Cosine()
    t = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-6)
    np.testing.assert_allclose(schedule.log_snr(jnp.float32(1.0)), -15, atol=1e-2)
    np.testing.assert_allclose(schedule.log_snr(jnp.float32(0.0)), 15, atol=1e-2)


@pytest.mark.parametrize("name", list(times.TIME_GRIDS))
def test_time_grids_fall_from_noise_to_data(name):
    grid = np.asarray(times.TIME_GRIDS[name](Cosine(), 12))
    assert grid.shape == (13,) and grid[0] == 1 and grid[-1] == 0
    assert (np.diff(grid) < 0).all()
