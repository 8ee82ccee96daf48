"""Sampling agrees with scipy's interpolation, and points map where the docstring says."""

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import map_coordinates

from vasa_jax.nn.warp import image_grid, sample_image, sample_volume, volume_grid


def cells(points, sizes):
    """[-1, 1] -> array index, clamped to the centres of the border cells."""
    return [np.clip((p + 1) * n / 2 - 0.5, 0, n - 1) for p, n in zip(points, sizes, strict=True)]


def test_image_samples_equal_scipy():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(7, 11, 3)).astype(np.float32)
    points = rng.uniform(-1.2, 1.2, size=(50, 2)).astype(np.float32)
    y, x = cells([points[:, 1], points[:, 0]], (7, 11))
    expected = np.stack([map_coordinates(image[..., c], [y, x], order=1) for c in range(3)], -1)
    np.testing.assert_allclose(sample_image(jnp.asarray(image), points), expected, atol=2e-6)


def test_volume_samples_equal_scipy():
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(4, 6, 5, 2)).astype(np.float32)
    points = rng.uniform(-1.1, 1.1, size=(60, 3)).astype(np.float32)
    z, y, x = cells([points[:, 2], points[:, 1], points[:, 0]], (4, 6, 5))
    expected = np.stack([map_coordinates(volume[..., c], [z, y, x], order=1) for c in range(2)], -1)
    np.testing.assert_allclose(sample_volume(jnp.asarray(volume), points), expected, atol=2e-6)


def test_sampling_at_its_own_grid_returns_the_array():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(8, 6, 2)).astype(np.float32)
    volume = rng.normal(size=(4, 8, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(sample_image(image, image_grid(8, 6)), image, atol=1e-5)
    np.testing.assert_allclose(sample_volume(volume, volume_grid(4, 8, 6)), volume, atol=1e-5)
