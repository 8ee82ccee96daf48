"""Times of a stage-2 batch: one in each part of [0, 1], whichever row gets it."""

import jax
import numpy as np

from vasa_jax.train.motion import stratified


def test_every_part_has_one_time_and_rows_have_no_order():
    keys = jax.random.split(jax.random.key(0), 200)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: stratified(key, 16)))(keys))
    np.testing.assert_array_equal(
        np.sort(np.floor(draws * 16), 1), np.tile(np.arange(16.0), (200, 1))
    )
    # Tied to the rows, the mean of the first would be 1 / 32 and that of the last 31 / 32.
    np.testing.assert_allclose(draws.mean(0), 0.5, atol=0.1)
    neighbours = np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.15  # windows of one stretch of sound are neighbours
