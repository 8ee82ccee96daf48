"""Which dtype each kind of number has, decided in one object and passed explicitly.

Parameters and everything that is summed over many terms (statistics of normalisation, softmax,
losses, sampling grids) are float32. Only the bulk of the arithmetic may be narrower: bfloat16 on
accelerators, float32 on CPU, where bfloat16 is slower.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, TypeVar

import jax
import jax.numpy as jnp

Name = Literal["float32", "bfloat16", "float16"]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """Dtypes by role, as names, so that a configuration with it is plain JSON."""

    params: Name = "float32"
    compute: Name = "float32"

    # In configurations that were saved when they were fields; they never did anything.
    RETIRED: ClassVar[tuple[str, ...]] = ("stats", "matmul")

    @property
    def params_dtype(self) -> Any:
        return jnp.dtype(self.params)

    @property
    def compute_dtype(self) -> Any:
        return jnp.dtype(self.compute)

    def to_params(self, tree: T) -> T:
        """``tree`` with its floating arrays in the parameter dtype; other leaves untouched."""
        return _cast(tree, self.params_dtype)


F32 = Precision()
BF16 = Precision(compute="bfloat16")


def _cast(tree: T, dtype: Any) -> T:
    def leaf(x: Any) -> Any:
        # Keys and integers keep their type; a Python float becomes no array here.
        if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating):
            return x.astype(dtype)
        return x

    return jax.tree.map(leaf, tree)
