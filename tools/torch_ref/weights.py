"""Weights of ours in a twin: every leaf of the tree used exactly once, every tensor filled.

The walk goes over the twin's ``state_dict`` and asks the tree for the leaf of the same name::

    flax  decoder/block_3/conv_0/kernel  (Y, X, I, O)        blocks in a ModuleList lose "_"
    torch decoder.block.3.conv.0.weight  (O, I, Y, X)        a trailing "_" frees Python's keywords

Kernels change from (*spatial, I, O) to (O, I, *spatial), where a dense layer may have become a
1x1 convolution; all else keeps its shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vasa_jax.core.tree import flatten, unflatten


def flax_name(torch_name: str) -> str:
    """Path of the leaf for a tensor's name; ``kernel`` stands for kernel or scale."""
    parts = re.sub(r"\.(\d+)(?=\.|$)", r"_\1", torch_name).split(".")
    parts = [part.removesuffix("_") for part in parts]
    return "/".join([*parts[:-1], {"weight": "kernel"}.get(parts[-1], parts[-1])])


def convert(params: Any, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the names and shapes of ``like`` that holds ``params``.

    Raises ValueError for a leaf that is missing, left over, or of another size.
    """
    table = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    used: set[str] = set()
    out: dict[str, torch.Tensor] = {}
    for name, tensor in like.items():
        path = flax_name(name)
        is_kernel = path.split("/")[-1] == "kernel"
        if is_kernel and path not in table:
            path, is_kernel = path.removesuffix("kernel") + "scale", False
        if path not in table or path in used:
            raise ValueError(f"{name}: {'used twice' if path in used else 'no leaf'} {path!r}")
        used.add(path)
        leaf = table[path]
        if is_kernel:
            *spatial, _, _ = range(leaf.ndim)
            leaf = leaf.transpose(leaf.ndim - 1, leaf.ndim - 2, *spatial)
        shape = tuple(tensor.shape)
        same = leaf.shape == shape or (
            # A dense layer as a 1x1 (x1) convolution.
            leaf.shape == shape[:2] and set(shape[2:]) == {1}
        )
        if not same:
            raise ValueError(f"{name}: {path} is {leaf.shape}, expected {shape}")
        out[name] = torch.from_numpy(np.array(leaf, np.float32).reshape(shape))
    left = sorted(set(table) - used)
    if left:
        raise ValueError(f"leaves without a tensor: {', '.join(left[:8])}")
    return out


def load(module: torch.nn.Module, params: Any, *, channels_last: bool = True) -> torch.nn.Module:
    """Fills ``module`` with ``params``, in evaluation mode and channels-last; returns it."""
    module.load_state_dict(convert(params, module.state_dict()), strict=True)
    for tensor in module.parameters() if channels_last else ():
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
        elif tensor.ndim == 5:
            tensor.data = tensor.data.to(memory_format=torch.channels_last_3d)
    return module.eval()


def gradients(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Gradients of a twin as a table by the path names of ours, in our layout."""
    out = {}
    for name, tensor in module.named_parameters():
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        array = grad.detach().cpu().numpy()
        if name.endswith("weight") and array.ndim > 1:
            array = array.transpose(*range(2, array.ndim), 1, 0)
        out[flax_name(name)] = array
    return out


def tensors(tree: Any, device: str | torch.device = "cpu") -> Any:
    """Arrays of a tree (dicts, tuples, NamedTuples; None stays) as tensors; others as they are."""
    if isinstance(tree, Mapping):
        return {name: tensors(part, device) for name, part in tree.items()}
    if hasattr(tree, "_fields"):
        return type(tree)(*(tensors(part, device) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(tensors(part, device) for part in tree)
    if hasattr(tree, "shape"):
        return torch.from_numpy(np.array(tree)).to(device)
    return tree


def random_weights(shapes: Any, seed: int = 0) -> Any:
    """Numbers of the right scale for ``jax.eval_shape`` of an initialisation, none of them zero."""
    rng = np.random.default_rng(seed)

    def leaf(name: str, x: Any) -> np.ndarray:
        noise = rng.standard_normal(x.shape, np.float32)
        if len(x.shape) < 2:
            return 0.05 * noise + float(name.endswith("/scale"))
        return noise / np.float32(np.sqrt(np.prod(x.shape[:-1])))

    return unflatten({name: leaf(name, x) for name, x in flatten(shapes).items()})


_DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64}


def read_release(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(params by part, config, stats) of a release's folder, with numpy alone.

    The comparison on a GPU wants no package but the frameworks; the safetensors format is a
    length, a JSON table and the bytes. Checksums are ``load_release``'s affair.
    """
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    table = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + n for n in entry["data_offsets"])
        leaf = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        table[name] = leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
    config, stats = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "stats.json")
    )
    return unflatten(table), config, stats
