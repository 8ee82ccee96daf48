"""The lite model's decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.warp.decoder import Decoder
from vasa_jax.face.warp.geometry import NUM_MAPS, Maps

pytestmark = pytest.mark.usefixtures("broadcasting")


def test_what_does_not_change_over_the_picture_is_drawn_without_stipple():
    """Sub-pixel layers give neighbours different weights; a constant must come out as one."""
    rng = np.random.default_rng(0)
    decoder = Decoder((4, 6, 8))
    size, cells = 128, 16
    layers = np.broadcast_to(rng.uniform(-1, 1, 6), (1, size, size, 6)).astype(np.float32)
    maps = Maps(*np.full((NUM_MAPS, 1, size, size), 0.5, np.float32))
    volume = np.broadcast_to(rng.normal(size=16), (1, cells, cells, 16)).astype(np.float32)
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), layers, maps, volume)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.15, s.shape), s.dtype), shapes)
    painted = np.asarray(decoder.apply({"params": params}, layers, maps, volume)["painted"])
    inner = painted[0, 56:72, 56:72]  # the padding of convolutions does not reach there
    assert np.ptp(painted) > 0.1  # elsewhere it does
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:1, :1], inner.shape), atol=2e-5)
