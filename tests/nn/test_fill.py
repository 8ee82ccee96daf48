"""Holes filled from around, against pictures that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn import fill

pytestmark = pytest.mark.usefixtures("broadcasting")


def test_push_pull_leaves_the_picture_and_fills_the_hole_smoothly():
    y, x = np.mgrid[:64, :64] / 64.0
    image = np.stack([x, y, x + y], -1).astype(np.float32)
    hole = np.zeros((64, 64), np.float32)
    hole[24:32, 30:44] = 1
    broken = np.where(hole[..., None] > 0, 9.0, image).astype(np.float32)
    filled = np.asarray(fill.push_pull(jnp.asarray(broken), jnp.asarray(hole)))
    np.testing.assert_allclose(filled[hole == 0], image[hole == 0], atol=1e-5)
    assert np.abs(filled - image)[hole > 0].max() < 0.12  # a ramp stays a ramp, roughly


def test_cells_are_sums():
    image = np.random.default_rng(1).normal(size=(24, 16, 3)).astype(np.float32)
    n = fill.COARSE
    expected = image.reshape(24 // n, n, 16 // n, n, 3).sum((1, 3))
    np.testing.assert_allclose(fill.cells(jnp.asarray(image)), expected, rtol=1e-5, atol=1e-5)


def test_cells_spread_linearly_between_their_centres():
    cells = np.random.default_rng(0).normal(size=(8, 6, 3)).astype(np.float32)
    got = fill.spread(jnp.asarray(cells))
    n = fill.COARSE
    expected = jax.image.resize(cells, (8 * n, 6 * n, 3), "linear")
    np.testing.assert_allclose(got, expected, atol=1e-6)
