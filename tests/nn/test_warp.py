"""Sampling agrees with scipy's interpolation, and points map where the docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from vasa_jax.nn import warp
from vasa_jax.nn.warp import (
    centres,
    image_grid,
    sample_image,
    sample_twice,
    sample_volumes,
    shifted,
)


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


@pytest.mark.parametrize("channels", [2, 12])
def test_volume_samples_equal_scipy(channels):
    rng = np.random.default_rng(1)
    volumes = rng.normal(size=(3, 4, 6, 5, channels)).astype(np.float32)
    points = rng.uniform(-1.1, 1.1, size=(3, 60, 3)).astype(np.float32)
    expected = np.empty((3, 60, channels))
    for b, c in np.ndindex(3, channels):
        z, y, x = cells([points[b, :, 2], points[b, :, 1], points[b, :, 0]], (4, 6, 5))
        expected[b, :, c] = map_coordinates(volumes[b, ..., c], [z, y, x], order=1)
    planes = np.moveaxis(points, -1, 0)
    np.testing.assert_allclose(sample_volumes(jnp.asarray(volumes), *planes), expected, atol=2e-6)
    # Weights and sums are float32 also for a volume in bfloat16.
    narrow = sample_volumes(jnp.asarray(volumes, jnp.bfloat16), *planes)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), expected, atol=2e-2)


@pytest.mark.parametrize("channels", [2, 12])
def test_gradients_of_volume_samples_equal_those_of_the_plain_loop(channels):
    rng = np.random.default_rng(5)
    volumes = jnp.asarray(rng.normal(size=(2, 3, 4, 5, channels)), jnp.float32)
    points = jnp.asarray(rng.uniform(-1.3, 1.3, size=(3, 2, 2, 3, 4)), jnp.float32)
    (ours, pull), (plain, pull_plain) = (
        jax.vjp(f, volumes, *points) for f in (sample_volumes, jax.vmap(warp._sample_fused))
    )
    np.testing.assert_allclose(ours, plain, atol=2e-6)
    given = jnp.asarray(rng.normal(size=ours.shape), jnp.float32)
    for got, expected in zip(pull(given), pull_plain(given), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("channels", [2, 12])
def test_gradients_of_volume_samples_equal_pytorch(channels):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    volumes = rng.normal(size=(2, 3, 4, 5, channels)).astype(np.float32)
    points = rng.uniform(-1.3, 1.3, size=(2, 2, 3, 4, 3)).astype(np.float32)
    given = rng.normal(size=(*points.shape[:-1], channels)).astype(np.float32)
    at = lambda v, p: sample_volumes(v, *jnp.moveaxis(p, -1, 0))  # noqa: E731
    got, pull = jax.vjp(at, jnp.asarray(volumes), jnp.asarray(points))
    theirs = [torch.from_numpy(a).requires_grad_() for a in (volumes, points)]
    expected = torch.nn.functional.grid_sample(
        theirs[0].permute(0, 4, 1, 2, 3), theirs[1], padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 4, 1)
    expected.backward(torch.from_numpy(given))
    np.testing.assert_allclose(got, expected.detach(), atol=2e-6)
    for ours, tensor in zip(pull(jnp.asarray(given)), theirs, strict=True):
        np.testing.assert_allclose(ours, tensor.grad, atol=2e-5)


def test_sampling_at_its_own_grid_returns_the_array():
    rng = np.random.default_rng(2)
    image = rng.normal(size=(8, 6, 2)).astype(np.float32)
    volume = rng.normal(size=(4, 8, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(sample_image(image, image_grid(8, 6)), image, atol=1e-5)
    again = sample_volumes(volume[None], *shifted(jnp.zeros((1, 4, 8, 6, 3))))
    np.testing.assert_allclose(again[0], volume, atol=1e-5)


def test_centres_are_those_of_an_open_grid_x_first():
    x, y, z = centres(2, 4, 5)
    assert (x.shape, y.shape, z.shape) == ((1, 1, 5), (1, 4, 1), (2, 1, 1))
    np.testing.assert_allclose(x.ravel(), [-0.8, -0.4, 0.0, 0.4, 0.8], atol=1e-6)
    np.testing.assert_allclose(y.ravel(), [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(z.ravel(), [-0.5, 0.5])


def test_sampling_twice_is_two_samplings_also_for_its_gradients():
    rng = np.random.default_rng(6)
    volume = jnp.asarray(rng.normal(size=(2, 3, 4, 5, 4)), jnp.float32)
    first, second = jnp.asarray(rng.uniform(-1.1, 1.1, (2, 3, 2, 3, 4, 5)), jnp.float32)

    def apart(volume, first, second):
        return sample_volumes(sample_volumes(volume, *first), *second)

    (ours, pull), (plain, pull_plain) = (
        jax.vjp(f, volume, first, second)
        for f in (lambda v, a, b: sample_twice(v, tuple(a), tuple(b)), apart)
    )
    np.testing.assert_allclose(ours, plain, atol=1e-6)
    for got, expected in zip(pull(ours), pull_plain(ours), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
