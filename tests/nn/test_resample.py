"""Changing resolution, against the same by other means."""

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn import resample


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 12)), jnp.float32)


def test_depth_to_space_inverts_space_to_depth(x):
    np.testing.assert_array_equal(resample.depth_to_space(resample.space_to_depth(x, 2), 2), x)


def test_nearest_upsampling_repeats_every_cell(x):
    expected = x.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(resample.upsample_nearest(x), expected)


@pytest.mark.parametrize(("taps", "pillow"), ((resample.LINEAR, 2), (resample.CUBIC, 3)))
def test_doubling_is_pillows_but_for_the_border(taps, pillow):
    from PIL import Image

    plane = np.random.default_rng(1).normal(size=(12, 10)).astype(np.float32)
    want = np.asarray(Image.fromarray(plane).resize((20, 24), pillow))
    got = resample.double(jnp.asarray(plane)[None, :, :, None], taps)[0, ..., 0]
    np.testing.assert_allclose(got[4:-4, 4:-4], want[4:-4, 4:-4], atol=1e-5)


def test_doubling_keeps_a_constant_up_to_the_border():
    x = jnp.full((1, 3, 4, 2), 0.7)
    for taps in (resample.LINEAR, resample.CUBIC):
        np.testing.assert_allclose(resample.double(x, taps), 0.7, rtol=1e-6)
