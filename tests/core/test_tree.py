from __future__ import annotations

import jax
import numpy as np
import pytest

from vasa_jax.core import tree

PARAMS = {
    "encoder": {"conv_0": {"kernel": np.ones((3, 3, 3, 8), np.float32), "bias": np.zeros(8, "f")}},
    "out": [np.arange(4), np.arange(6).reshape(2, 3)],
}


def test_flatten_names_every_leaf_by_its_path_and_unflatten_undoes_it() -> None:
    table = tree.flatten(PARAMS)
    assert set(table) == {"encoder/conv_0/kernel", "encoder/conv_0/bias", "out/0", "out/1"}
    nested = {"a": {"b": 1, "c": {"d": 2}}}
    assert tree.unflatten(tree.flatten(nested)) == nested
    with pytest.raises(ValueError, match="leaf"):
        tree.unflatten({"a": 1, "a/b": 2})


def test_count_and_bytes_are_those_of_the_shapes() -> None:
    assert tree.count(PARAMS) == 216 + 8 + 4 + 6
    assert tree.num_bytes(PARAMS["encoder"]) == 4 * (216 + 8)
    shapes = jax.eval_shape(lambda: {"x": jax.numpy.zeros((5, 5))})
    assert tree.count(shapes) == 25


def test_comparison_names_the_path_and_what_differs() -> None:
    other = {
        "encoder": {"conv_0": {"kernel": np.ones((3, 3, 3, 9), np.float32)}},
        "out": [np.arange(4), np.arange(6).reshape(2, 3)],
        "more": np.zeros(1),
    }
    message = "\n".join(tree.differences(PARAMS, other))
    assert "encoder/conv_0/bias: missing (expected float32[8])" in message
    assert "encoder/conv_0/kernel: expected float32[3, 3, 3, 8], got float32[3, 3, 3, 9]" in message
    assert "more: unexpected" in message
    assert not tree.differences(PARAMS, PARAMS, values=True)


def test_values_are_compared_within_tolerance_and_nan_equals_nan() -> None:
    a, b = {"x": np.array([1.0, np.nan])}, {"x": np.array([1.01, np.nan])}
    assert tree.differences(a, b, values=True, atol=0.1) == []
    assert "1 of 2 values differ" in tree.differences(a, b, values=True)[0]
