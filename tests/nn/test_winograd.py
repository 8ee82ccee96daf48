"""Winograd's form of a convolution against XLA's convolution and against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn import convolution
from vasa_jax.nn.winograd import conv_winograd, fits


@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 2, 2, 1), (3, 4, 16, 40)])
def test_equals_the_plain_convolution(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, shape[-1], 7)), jnp.float32)
    np.testing.assert_allclose(
        conv_winograd(x, kernel), convolution._plain_conv(x, kernel), rtol=1e-4, atol=1e-4
    )


def test_each_tap_moves_a_picture_by_one_cell():
    x = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    for i in range(3):
        for j in range(3):
            kernel = jnp.zeros((3, 3, 1, 1)).at[i, j].set(2.0)
            moved = np.zeros((6, 6))
            moved[2 - i : 6 - i, 2 - j : 6 - j] = 2.0 * x[0, :, :, 0]
            np.testing.assert_array_equal(conv_winograd(x, kernel)[0, :, :, 0], moved[1:5, 1:5])


def test_takes_only_what_it_can():
    assert fits((1, 4, 6, 3), (3, 3, 3, 5), 1)
    assert not fits((1, 5, 6, 3), (3, 3, 3, 5), 1)
    assert not fits((1, 4, 6, 3), (3, 3, 3, 5), 2)
    assert not fits((1, 4, 6, 3), (3, 1, 3, 5), 1)


@pytest.mark.parametrize("side", [10, 9])
def test_wide_convolutions_on_a_cpu_and_their_gradients(side):
    """Of even sides in Winograd's form, which the traced program shows; of odd ones as they are."""
    channels = convolution.WINOGRAD_CHANNELS
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(1, side, side, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, channels)) / 50, jnp.float32)
    traced = str(jax.make_jaxpr(convolution.conv_same)(x, kernel))
    assert ("conv_general_dilated" in traced) == (side == 9)

    def loss(f):
        return lambda x, k: jnp.sum(jnp.sin(f(x, k)))

    ours = jax.value_and_grad(loss(convolution.conv_same), argnums=(0, 1))(x, kernel)
    plain = jax.value_and_grad(loss(convolution._plain_conv), argnums=(0, 1))(x, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_volumes_of_many_channels():
    channels = convolution.WINOGRAD_CHANNELS
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(1, 2, 10, 10, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, channels, channels)) / 50, jnp.float32)
    np.testing.assert_allclose(
        convolution.conv3d_same(x, kernel), convolution._plain_conv3d(x, kernel),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
