"""Parameter trees as tables from path name to array: count and compare.

Paths are joined by ``/`` (``face/encoder/conv_0/kernel``); they are the names in releases and in
converter tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

SEPARATOR = "/"


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by path name, in the order of the tree. Works on dicts, lists and dataclasses."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_name(path): leaf for path, leaf in leaves}


def unflatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose ``flatten`` is ``table``. Raises ValueError where a name is both a
    leaf and a branch."""
    root: dict[str, Any] = {}
    for name, leaf in table.items():
        *branches, last = name.split(SEPARATOR)
        node = root
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name!r} lies below {branch!r}, which is a leaf")
        if last in node:
            raise ValueError(f"{name!r} is there twice, or is both a leaf and a branch")
        node[last] = leaf
    return root


def path_name(path: tuple[Any, ...]) -> str:
    """``/``-joined name of a JAX key path."""
    return SEPARATOR.join(_key_name(key) for key in path)


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def count(tree: Any) -> int:
    """Number of scalars in all leaves that have a shape."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))


def num_bytes(tree: Any) -> int:
    """Bytes of all leaves that have a shape and a dtype."""
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    )


def differences(
    expected: Any, actual: Any, *, values: bool = False, atol: float = 0.0, rtol: float = 0.0
) -> list[str]:
    """What separates ``actual`` from ``expected``, one line per path; empty when nothing does.

    Compares presence, shape and dtype, and with ``values`` also numbers (|a - e| <= atol +
    rtol * |e|; NaN equals NaN). Leaves may be ``jax.ShapeDtypeStruct`` when values are not asked.
    """
    table_e, table_a = flatten(expected), flatten(actual)
    lines = [f"{name}: missing (expected {_describe(table_e[name])})" for name in table_e
             if name not in table_a]  # fmt: skip
    lines += [f"{name}: unexpected ({_describe(table_a[name])})" for name in table_a
              if name not in table_e]  # fmt: skip
    for name, leaf_e in table_e.items():
        if name not in table_a:
            continue
        leaf_a = table_a[name]
        if _describe(leaf_e) != _describe(leaf_a):
            lines.append(f"{name}: expected {_describe(leaf_e)}, got {_describe(leaf_a)}")
        elif values:
            e, a = np.asarray(leaf_e), np.asarray(leaf_a)
            if np.issubdtype(e.dtype, np.number) and e.dtype.kind != "V":
                e, a = e.astype(np.float64), a.astype(np.float64)
                same = np.isclose(a, e, atol=atol, rtol=rtol, equal_nan=True)
            else:
                same = np.asarray(e == a)
            if not same.all():
                gap = f", largest gap {np.nanmax(np.abs(a - e)):.3g}" if e.dtype.kind == "f" else ""
                lines.append(f"{name}: {int((~same).sum())} of {same.size} values differ{gap}")
    return lines


def _describe(leaf: Any) -> str:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return type(leaf).__name__
