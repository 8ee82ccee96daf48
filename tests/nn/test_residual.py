"""Layers of the full face model against their formulas, numpy, and published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.tree import count
from vasa_jax.nn.conv import LowRankGroupNorm, standardise, upsample_nearest
from vasa_jax.nn.residual import ResNet, mean_pool


def test_low_rank_group_norm_is_its_formula():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)  # B Z Y X C
    code = rng.normal(size=(2, 4, 7)).astype(np.float32)  # B L D
    params = {
        "rows": rng.normal(size=(7, 6)), "columns": rng.normal(size=(4, 2)),
        "scale": rng.normal(size=6), "bias": rng.normal(size=6),
    }  # fmt: skip
    out = LowRankGroupNorm(groups=3).apply(
        {"params": {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}}, x, code
    )
    # [dgain, dbias] = U E V with E (D, L) the code of one example, written out in numpy.
    for b in range(2):
        change = params["rows"].T @ code[b].T @ params["columns"]  # (C, 2)
        groups = x[b].reshape(3, 4, 5, 3, 2)
        mean = groups.mean((0, 1, 2, 4), keepdims=True)
        deviation = np.sqrt(groups.var((0, 1, 2, 4), keepdims=True) + 1e-5)
        normal = ((groups - mean) / deviation).reshape(x[b].shape)
        want = normal * (params["scale"] + change[:, 0]) + params["bias"] + change[:, 1]
        np.testing.assert_allclose(out[b], want, atol=2e-4)


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


def test_pooling_and_upsampling_by_own_factors():
    x = jnp.arange(2 * 2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 2, 4, 6, 3)
    up = upsample_nearest(x, (2, 1, 3))
    np.testing.assert_array_equal(up, np.asarray(x).repeat(2, 1).repeat(3, 3))
    np.testing.assert_allclose(mean_pool(up, (2, 1, 3)), x, rtol=1e-6)
    np.testing.assert_allclose(mean_pool(x, (1, 4, 6))[1, 0, 0, 0, 2], x[1, 0, :, :, 2].mean())
