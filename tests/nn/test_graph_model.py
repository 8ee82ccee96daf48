"""The graph reader against sums done by hand in numpy."""

from __future__ import annotations

import base64
import json

import jax
import numpy as np
import pytest

from vasa_jax.nn.graph_model import load_graph


def _s(text: str) -> dict:
    return {"s": base64.b64encode(text.encode()).decode()}


def _write(folder, nodes, weights, outputs):
    raw, specs = b"", []
    for name, (array, extra) in weights.items():
        raw += array.tobytes()
        dtype = extra.get("as", array.dtype.name)
        spec = {"name": name, "shape": list(array.shape), "dtype": dtype}
        if "quantization" in extra:
            spec["quantization"] = extra["quantization"]
        specs.append(spec)
        nodes.append({"name": name, "op": "Const", "input": []})
    (folder / "net.bin").write_bytes(raw)
    model = {
        "modelTopology": {"node": nodes},
        "signature": {"outputs": {o: {"name": f"{o}:0"} for o in outputs}},
        "weightsManifest": [{"paths": ["net.bin"], "weights": specs}],
    }
    (folder / "net.json").write_text(json.dumps(model))
    return folder / "net.json"


@pytest.fixture
def net(tmp_path):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    q = rng.integers(0, 255, (4, 5), dtype=np.uint8)
    conv_attr = {
        "strides": {"list": {"i": ["1", "2", "2", "1"]}},
        "padding": _s("VALID"),
        "fused_ops": {"list": {"s": [_s("BiasAdd")["s"], _s("Relu")["s"]]}},
    }
    nodes = [
        {"name": "x", "op": "Placeholder"},
        {"name": "conv", "op": "_FusedConv2D", "input": ["x", "k", "b"], "attr": conv_attr},
        {"name": "mean", "op": "Mean", "input": ["conv", "axes"], "attr": {}},
        {"name": "out", "op": "MatMul", "input": ["mean", "q"], "attr": {}},
    ]
    scale = {"quantization": {"dtype": "uint8", "scale": 0.5, "min": -3.0}, "as": "float32"}
    weights = {
        "k": (kernel, {}),
        "b": (bias, {}),
        "axes": (np.array([1, 2], np.int32), {}),
        "q": (q, scale),
    }
    path = _write(tmp_path, nodes, weights, ["out"])

    def by_hand(x):
        patches = x.reshape(len(x), 3, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5)
        y = np.einsum("nyxijc,ijco->nyxo", patches, kernel) + bias
        return np.maximum(y, 0).mean((1, 2)) @ (q.astype(np.float32) * 0.5 - 3.0)

    return path, by_hand


def test_outputs_equal_the_same_sums_in_numpy(net):
    path, by_hand = net
    graph, weights = load_graph(path)
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)
    got = jax.jit(graph)(weights, x)["out"]
    np.testing.assert_allclose(got, by_hand(x), rtol=2e-4, atol=2e-4)


def test_gradient_agrees_with_finite_differences(net):
    path, by_hand = net
    graph, weights = load_graph(path)
    x = np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(np.float32)
    slope = jax.grad(lambda v: graph(weights, v)["out"].sum())(x)
    d = np.zeros_like(x)
    d[0, 2, 3, 1] = 1e-2
    want = (by_hand(x + d).sum() - by_hand(x - d).sum()) / 2e-2
    np.testing.assert_allclose(slope[0, 2, 3, 1], want, rtol=2e-2, atol=1e-2)


def test_weights_travel_as_arguments_and_shapes_stay_constants(net):
    _, weights = load_graph(net[0])
    assert set(weights) == {"k", "b", "q"}


def test_an_unknown_operation_is_named(tmp_path):
    nodes = [
        {"name": "x", "op": "Placeholder"},
        {"name": "y", "op": "FancyOp", "input": ["x", "a"]},
    ]
    path = _write(tmp_path, nodes, {"a": (np.array([1], np.int32), {})}, ["y"])
    graph, weights = load_graph(path)
    with pytest.raises(NotImplementedError, match="FancyOp"):
        graph(weights, np.zeros((1, 2, 2, 3), np.float32))
