"""Schedules, time grids, and the one conversion between what networks predict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.diffusion import times
from vasa_jax.diffusion.process import PREDICTIONS, corrupt, from_x0, path_slope, to_x0
from vasa_jax.diffusion.schedules import Cosine, Linear

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), Linear()], ids=["cosine", "linear"])


def known(schedule):
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t = jnp.array([0.1, 0.4, 0.7, 0.9])
    return x0, eps, t, corrupt(schedule, x0, eps, t)


@SCHEDULES
def test_each_prediction_is_what_its_name_says(schedule):
    x0, eps, t, x = known(schedule)
    a, s = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    meaning = {"x0": x0, "epsilon": eps, "velocity": a * eps - s * x0, "flow": eps - x0}
    assert set(meaning) == set(PREDICTIONS)
    for prediction, output in meaning.items():
        np.testing.assert_allclose(from_x0(schedule, x, t, x0, prediction), output, atol=2e-4)
        np.testing.assert_allclose(to_x0(schedule, x, t, output, prediction), x0, atol=2e-4)


def test_an_unknown_prediction_is_named():
    with pytest.raises(ValueError, match="score"):
        to_x0(Cosine(), jnp.ones(2), jnp.float32(0.5), jnp.ones(2), "score")


def test_the_slope_of_the_path_is_what_the_networks_of_each_process_predict():
    """Flow on the straight path (but for its margin), velocity on the circle (per radian)."""
    for schedule, prediction, rate in (
        (Linear(), "flow", 1 - 2 * Linear().margin),
        (Cosine(), "velocity", float(np.diff(Cosine()._theta(jnp.arange(2.0)))[0])),
    ):
        x0, _, t, x = known(schedule)
        slope = path_slope(schedule, x, t, x0)
        expected = rate * from_x0(schedule, x, t, x0, prediction)
        np.testing.assert_allclose(slope, expected, atol=5e-4)


@SCHEDULES
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


def test_linear_is_the_straight_path():
    t = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(Linear().alpha(t), 1 - t, atol=2e-4)
    np.testing.assert_allclose(Linear().sigma(t), t, atol=2e-4)


@SCHEDULES
@pytest.mark.parametrize("name", list(times.TIME_GRIDS))
@pytest.mark.parametrize("num_steps", [1, 2, 12])
def test_time_grids_fall_from_noise_to_data(name, schedule, num_steps):
    grid = np.asarray(times.TIME_GRIDS[name](schedule, num_steps))
    assert grid.shape == (num_steps + 1,) and grid.dtype == np.float32
    assert grid[0] == 1 and grid[-1] == 0
    assert (np.diff(grid) < 0).all()


@SCHEDULES
def test_grids_are_even_in_their_own_variable(schedule):
    log_snr = schedule.log_snr(times.log_snr_uniform(schedule, 8))
    np.testing.assert_allclose(jnp.diff(log_snr)[1:-1], jnp.diff(log_snr)[2], rtol=1e-2)
    # Karras et al. 2022, equation 5, written as there.
    ratio = jnp.exp(-0.5 * schedule.log_snr(times.karras(schedule, 8)))
    high, low = (float(jnp.exp(-0.5 * schedule.log_snr(jnp.float32(t)))) for t in (1.0, 0.0))
    i = np.arange(9)
    expected = (high ** (1 / 7) + i / 8 * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    np.testing.assert_allclose(ratio, expected, rtol=2e-2)


def test_trailing_times_are_rungs_of_the_ladder():
    grid = np.asarray(times.trailing(Cosine(), 3, levels=10))
    np.testing.assert_allclose(grid, [1.0, 0.7, 0.3, 0.0], atol=1e-7)
    np.testing.assert_allclose(times.trailing(Cosine(), 8), times.uniform(Cosine(), 8), atol=1e-7)
    with pytest.raises(ValueError, match="ladder"):
        times.trailing(Cosine(), 11, levels=10)
