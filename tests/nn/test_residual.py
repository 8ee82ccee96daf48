"""Layers of the full face model against their formulas, numpy, and published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.tree import count
from vasa_jax.nn.conv import standardise
from vasa_jax.nn.resample import mean_pool, upsample_nearest
from vasa_jax.nn.residual import NormBlock, ResNet


def test_standardised_weights_equal_numpy():
    kernel = np.random.default_rng(1).normal(2.0, 3.0, size=(3, 3, 5, 4)).astype(np.float32)
    flat = kernel.reshape(-1, 4)
    want = ((flat - flat.mean(0)) / (flat.std(0) + 1e-5)).reshape(kernel.shape)
    np.testing.assert_allclose(standardise(jnp.asarray(kernel)), want, atol=1e-5)


@pytest.mark.parametrize("blocks, bottleneck, published", [
    ((2, 2, 2, 2), False, 11_176_512),  # torchvision's ResNet-18 and 50 without their last layer
    ((3, 4, 6, 3), True, 23_508_032),
])  # fmt: skip
def test_trunks_have_the_published_number_of_parameters(blocks, bottleneck, published):
    net = ResNet(blocks, 64, bottleneck)
    assert count(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))) == (
        published
    )


@pytest.mark.parametrize(("features", "shortcut"), [(4, 3), (4, 1), (8, 3)])
def test_a_block_of_an_upsampled_picture_equals_upsampling_first(features, shortcut):
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 4, 6, 8)), jnp.float32)
    plain = NormBlock(features, shortcut)
    params = plain.init(jax.random.key(0), x)
    params = jax.tree.map(lambda a: a + 0.1, params)  # no scale is 1 and no bias 0
    got = NormBlock(features, shortcut, upsample=True).apply(params, x)
    np.testing.assert_allclose(got, plain.apply(params, upsample_nearest(x)), rtol=1e-4, atol=1e-4)


def test_pooling_and_upsampling_by_own_factors():
    x = jnp.arange(2 * 2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 2, 4, 6, 3)
    up = upsample_nearest(x, (2, 1, 3))
    np.testing.assert_array_equal(up, np.asarray(x).repeat(2, 1).repeat(3, 3))
    np.testing.assert_allclose(mean_pool(up, (2, 1, 3)), x, rtol=1e-6)
    np.testing.assert_allclose(mean_pool(x, (1, 4, 6))[1, 0, 0, 0, 2], x[1, 0, :, :, 2].mean())
