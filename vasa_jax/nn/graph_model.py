"""A frozen TensorFlow.js graph model as a pure JAX function: jit-able and differentiable, NHWC.

Small face nets are published in this format (a JSON graph and one file of raw weights). About
thirty operations cover them. ``load_graph`` returns ``(function, weights)`` so that the weights are
arguments of a compiled function, not constants folded into it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

GraphFn = Callable[[dict[str, Any], Any], dict[str, Any]]


def _attribute(node: dict, key: str, default: Any = None) -> Any:
    value = node.get("attr", {}).get(key)
    if value is None:
        return default
    if "s" in value:
        return base64.b64decode(value["s"]).decode()
    if "i" in value:
        return int(value["i"])
    if "f" in value:
        return float(value["f"])
    if "b" in value:
        return bool(value["b"])
    if "list" in value:
        many = value["list"]
        if "i" in many:
            return [int(x) for x in many["i"]]
        if "s" in many:
            return [base64.b64decode(x).decode() for x in many["s"]]
        return []
    return default


def _read_weights(model: dict, folder: Path) -> dict[str, np.ndarray]:
    """All constants by node name; quantised ones become float32."""
    weights: dict[str, np.ndarray] = {}
    for group in model["weightsManifest"]:
        raw = b"".join((folder / p).read_bytes() for p in group["paths"])
        at = 0
        for spec in group["weights"]:
            quantised = spec.get("quantization")
            dtype = np.dtype(quantised["dtype"] if quantised else spec["dtype"])
            count = int(np.prod(spec["shape"], dtype=np.int64))
            array = np.frombuffer(raw, dtype, count, at).reshape(spec["shape"])
            at += count * dtype.itemsize
            if quantised and "scale" in quantised:
                array = array.astype(np.float32) * np.float32(quantised["scale"])
                array = array + np.float32(quantised["min"])
            weights[spec["name"]] = array.astype(spec["dtype"])
    return weights


def _name(edge: str) -> str:
    return edge.split(":")[0].lstrip("^")


def _order(nodes: dict[str, dict], outputs: list[str]) -> list[str]:
    """Nodes that the outputs need, each after its inputs."""
    done: dict[str, None] = {}
    stack = [(name, False) for name in reversed(outputs)]
    while stack:
        name, ready = stack.pop()
        if name in done:
            continue
        if ready:
            done[name] = None
        else:
            stack.append((name, True))
            stack.extend((_name(e), False) for e in reversed(nodes[name].get("input", [])))
    return list(done)


def _activate(x: Any, operations: list[str], extra: list[Any], alpha: float | None) -> Any:
    """The tail of a fused operation: bias, then activation."""
    for op in operations:
        if op == "BiasAdd":
            x = _elementwise(jnp.add, x, extra.pop(0))
        elif op == "Prelu":
            x = jnp.maximum(x, 0) + _elementwise(jnp.multiply, jnp.minimum(x, 0), extra.pop(0))
        elif op == "LeakyRelu":
            x = jax.nn.leaky_relu(x, 0.2 if alpha is None else alpha)
        elif op in _UNARY:
            x = _UNARY[op](x)
        else:
            raise NotImplementedError(f"fused operation {op}")
    return x


def _elementwise(fn: Callable, a: Any, b: Any) -> Any:
    return fn(*jnp.broadcast_arrays(a, b))


_UNARY: dict[str, Callable] = {
    "Identity": lambda x: x,
    "Relu": jax.nn.relu,
    "Relu6": lambda x: jnp.clip(x, 0, 6),
    "Elu": jax.nn.elu,
    "Sigmoid": jax.nn.sigmoid,
    "Tanh": jnp.tanh,
    "Softmax": jax.nn.softmax,
    "Abs": jnp.abs,
    "Square": jnp.square,
    "Sqrt": jnp.sqrt,
    "Rsqrt": lax.rsqrt,
    "Exp": jnp.exp,
    "Neg": jnp.negative,
}
_BINARY: dict[str, Callable] = {
    "Add": jnp.add,
    "AddV2": jnp.add,
    "BiasAdd": jnp.add,
    "Sub": jnp.subtract,
    "Mul": jnp.multiply,
    "RealDiv": jnp.divide,
    "Maximum": jnp.maximum,
    "Minimum": jnp.minimum,
}
_REDUCE: dict[str, Callable] = {"Mean": jnp.mean, "Sum": jnp.sum, "Max": jnp.max, "Min": jnp.min}
_CONVS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")


def _padding(node: dict) -> Any:
    kind = _attribute(node, "padding", "SAME")
    if kind == "EXPLICIT":
        e = _attribute(node, "explicit_paddings")
        return [(e[2], e[3]), (e[4], e[5])]
    return kind


def _convolve(node: dict, x: Any, kernel: Any, extra: list[Any]) -> Any:
    groups = 1
    if "Depthwise" in node["op"]:
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    y = lax.conv_general_dilated(
        x,
        kernel,
        _attribute(node, "strides")[1:3],
        _padding(node),
        rhs_dilation=(_attribute(node, "dilations") or [1, 1, 1, 1])[1:3],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    if "Fused" in node["op"]:
        alpha = _attribute(node, "leakyrelu_alpha")
        y = _activate(y, _attribute(node, "fused_ops", []), extra, alpha)
    return y


def _pool(node: dict, x: Any) -> Any:
    size, strides = _attribute(node, "ksize"), _attribute(node, "strides")
    padding = _attribute(node, "padding")
    if node["op"] == "MaxPool":
        return lax.reduce_window(x, -jnp.inf, lax.max, size, strides, padding)
    total = lax.reduce_window(x, 0.0, lax.add, size, strides, padding)
    # TensorFlow's average leaves padding out of the count.
    count = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, size, strides, padding)
    return total / count


def _apply(node: dict, inputs: list[Any], static: list[np.ndarray | None]) -> Any:
    """One node. ``static`` holds the numpy value of the inputs that are constants of the graph."""
    op = node["op"]
    if op in _CONVS:
        return _convolve(node, inputs[0], inputs[1], list(inputs[2:]))
    if op in _UNARY:
        return _UNARY[op](inputs[0])
    if op in _BINARY:
        return _elementwise(_BINARY[op], inputs[0], inputs[1])
    if op in ("MatMul", "_FusedMatMul"):
        a = inputs[0].T if _attribute(node, "transpose_a") else inputs[0]
        b = inputs[1].T if _attribute(node, "transpose_b") else inputs[1]
        y = a @ b
        if "Fused" in op:
            y = _activate(y, _attribute(node, "fused_ops", []), list(inputs[2:]), None)
        return y
    if op == "Prelu":
        x = inputs[0]
        return jnp.maximum(x, 0) + _elementwise(jnp.multiply, jnp.minimum(x, 0), inputs[1])
    if op == "LeakyRelu":
        return jax.nn.leaky_relu(inputs[0], _attribute(node, "alpha", 0.2))
    if op in ("MaxPool", "AvgPool"):
        return _pool(node, inputs[0])
    if op == "Squeeze":
        dims = _attribute(node, "squeeze_dims") or [
            i for i, n in enumerate(inputs[0].shape) if n == 1 and i > 0
        ]
        return jnp.squeeze(inputs[0], tuple(dims))
    # The rest take shapes or axes that must be known when the graph is traced.
    last = static[-1]
    if last is None:
        raise NotImplementedError(f"{op} with a computed shape in {node['name']}")
    if op == "Pad":
        return jnp.pad(inputs[0], last)
    if op == "Reshape":
        shape = [int(n) for n in last]
        # A graph frozen for one example still serves a batch.
        if shape and shape[0] == 1 and -1 not in shape and np.prod(shape) != inputs[0].size:
            shape[0] = -1
        return jnp.reshape(inputs[0], shape)
    if op == "ConcatV2":
        return jnp.concatenate(inputs[:-1], int(last))
    if op == "ExpandDims":
        return jnp.expand_dims(inputs[0], int(last))
    if op == "Transpose":
        return jnp.transpose(inputs[0], [int(n) for n in last])
    if op in _REDUCE:
        axes = tuple(int(n) for n in np.atleast_1d(last))
        return _REDUCE[op](inputs[0], axes, keepdims=bool(_attribute(node, "keep_dims")))
    raise NotImplementedError(f"operation {op} in {node['name']}")


def load_graph(path: str | Path) -> tuple[GraphFn, dict[str, np.ndarray]]:
    """Read ``model.json`` (weights beside it) as ``(function, weights)``.

    ``function(weights, x_BYXC)`` returns the graph's outputs by name (the part before ":"); the
    graph must have one input. The scaling of ``x`` is the model's own business.

    Raises:
        NotImplementedError: the graph uses an operation that is not covered here.
    """
    path = Path(path)
    model = json.loads(path.read_text())
    nodes = {n["name"]: n for n in model["modelTopology"]["node"]}
    signature = model.get("signature") or (model.get("userDefinedMetadata") or {}).get("signature")
    outputs = [_name(v["name"]) for v in ((signature or {}).get("outputs") or {}).values()]
    if not outputs:
        used = {_name(e) for n in nodes.values() for e in n.get("input", [])}
        outputs = [name for name in nodes if name not in used]
    order = _order(nodes, outputs)
    constants = _read_weights(model, path.parent)
    static = {n: constants[n] for n in order if nodes[n]["op"] == "Const"}
    # Integers are shapes and axes: they stay numpy. Floats are weights and travel as arguments.
    weights = {n: a for n, a in static.items() if np.issubdtype(a.dtype, np.floating)}

    def function(weights: dict[str, Any], x: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in order:
            node = nodes[name]
            if node["op"] == "Placeholder":
                values[name] = x
            elif node["op"] == "Const":
                values[name] = weights[name] if name in weights else static[name]
            else:
                edges = [_name(e) for e in node.get("input", []) if not e.startswith("^")]
                values[name] = _apply(
                    node, [values[e] for e in edges], [static.get(e) for e in edges]
                )
        return {name: values[name] for name in outputs}

    return function, weights
