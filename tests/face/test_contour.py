"""Soft contours: found where two surfaces meet, low-passed there and nowhere else."""

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.warp import geometry
from vasa_jax.face.warp.autoencoder import soften
from vasa_jax.nn.resample import binomial
from vasa_jax.nn.warp import image_grid

pytestmark = pytest.mark.usefixtures("broadcasting")
N = 16


def test_the_low_pass_is_binomial_keeps_constants_and_has_no_answer_at_nyquist():
    impulse = np.zeros((1, N, N, 1), np.float32)
    impulse[0, 5, 7, 0] = 16.0
    found = np.asarray(binomial(jnp.asarray(impulse)))[0, :, :, 0]
    np.testing.assert_allclose(found[4:7, 6:9], np.outer([1, 2, 1], [1, 2, 1]), atol=1e-6)
    assert found.sum() == pytest.approx(16.0)
    np.testing.assert_allclose(binomial(jnp.full((2, N, N, 3), 0.7)), 0.7, atol=1e-6)
    stipple = jnp.asarray((-1.0) ** np.arange(N), jnp.float32)[None, None, :, None]
    inside = binomial(jnp.broadcast_to(stipple, (1, N, N, 1)))[:, :, 1:-1]
    np.testing.assert_allclose(inside, 0.0, atol=1e-6)


def contour(points_YX2):
    return np.array(geometry.contour((points_YX2[..., 0], points_YX2[..., 1])))


def test_smooth_motion_has_no_contour():
    grid = image_grid(N, N)
    for flow in (grid, grid + 0.3, grid * 1.4):  # still, shifted, scaled by less than the threshold
        assert contour(flow).max() == 0.0


def test_two_surfaces_have_one_between_them():
    grid = image_grid(N, N)
    right = (jnp.arange(N) >= 6)[None, :, None]
    flow = grid + jnp.where(right, 3.0 * 2 / N, 0.0)  # three pixels to the side
    found = contour(flow)
    np.testing.assert_array_equal(found[:, [5, 6]], 1.0)
    found[:, [5, 6]] = 0.0
    assert not found.any()
    half = grid + jnp.where(right, 1.5 * 2 / N, 0.0)  # halfway between both thresholds
    np.testing.assert_allclose(contour(half)[:, 5], 0.5, atol=1e-4)


def test_only_contours_are_softened():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, N, N, 3)), jnp.float32)
    share = np.zeros((1, N, N), np.float32)
    share[0, 3, 4] = 1.0
    soft = np.array(soften(image, jnp.asarray(share)))
    np.testing.assert_allclose(soft[0, 3, 4], np.asarray(binomial(image))[0, 3, 4], atol=1e-6)
    soft[0, 3, 4] = np.asarray(image)[0, 3, 4]
    np.testing.assert_array_equal(soft, image)
