"""Our convolution layers against flax and XLA's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn import conv


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 12)), jnp.float32)


def test_group_norm_equals_flax(x):
    ours, theirs = conv.GroupNorm(groups=4), nn.GroupNorm(num_groups=4, epsilon=1e-5)
    params = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        ours.apply(params, x), theirs.apply({"params": params["params"]}, x), atol=3e-6
    )


@pytest.mark.parametrize(
    ("shape", "outputs", "size"),
    [
        ((2, 8, 6, 12), 5, (3, 3)),
        ((1, 36, 200, 4), 3, (3, 3)),  # several blocks of rows
        ((2, 7, 6, 40), 3, (3, 3)),  # few outputs: columns of the gradient
        ((2, 7, 6, 40), 2, (5, 1)),
        ((2, 5, 9, 3), 4, (1, 5)),
    ],
)
def test_cpu_convolution_has_the_gradients_of_the_plain_one(shape, outputs, size):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, shape[-1], outputs)), jnp.float32)

    def loss(f):
        return lambda x, k: jnp.sum(jnp.sin(f(x, k)))

    ours = jax.grad(loss(conv._cpu_conv), argnums=(0, 1))(x, kernel)
    plain = jax.grad(loss(conv._plain_conv), argnums=(0, 1))(x, kernel)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_convolution_of_few_cells_equals_the_plain_one(x):
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 12, 5)), jnp.float32)
    np.testing.assert_allclose(
        conv._conv_few_cells(x, kernel), conv._plain_conv(x, kernel), rtol=1e-4, atol=1e-4
    )


def test_conv3d_equals_the_native_one():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 6, 5, 3)), jnp.float32)
    layer = conv.Conv3D(4)
    params = layer.init(jax.random.key(0), x)["params"]
    native = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    for form in (layer, conv.Conv3D(4, native=True)):
        np.testing.assert_allclose(form.apply({"params": params}, x), native, atol=1e-5)


def test_depth_to_space_inverts_space_to_depth(x):
    np.testing.assert_array_equal(conv.depth_to_space(conv.space_to_depth(x, 2), 2), x)


def test_nearest_upsampling_repeats_every_cell(x):
    expected = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(conv.upsample_nearest(x), expected)
