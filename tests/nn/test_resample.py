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
