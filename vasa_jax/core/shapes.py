"""The legend of dimension letters, array types for signatures, and the check that enforces them.

One meaning for the whole project; rows and columns of an image are Y and X, so H stays free::

    B batch or stream    T video frames       S audio samples    A audio-feature frames
    L tokens             D model width        H heads            K width per head
    M motion vector      C channels           Y rows             X columns
    Z volume depth       P keypoints          N noise levels     V mesh vertices

Annotations on public functions use them in lower case, ``Float[Array, "b t m"]``, and are checked
by ``@typed`` when the function is called (inside ``jax.jit`` that is once, at trace time). Bodies
where several reshapes meet carry them as suffixes, ``q_BLHK``. Layout is channels last, time right
after batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, Float32, Int, Key, PRNGKeyArray, PyTree, Shaped, UInt8, jaxtyped

LEGEND = {
    "B": "batch or stream",
    "T": "video frames",
    "S": "audio samples",
    "A": "audio-feature frames",
    "L": "tokens",
    "D": "model width",
    "H": "heads",
    "K": "width per head",
    "M": "motion vector",
    "C": "channels",
    "Y": "rows",
    "X": "columns",
    "Z": "volume depth",
    "P": "keypoints",
    "N": "noise levels",
    "V": "mesh vertices",
}

Array = jax.Array | np.ndarray
"""What a function of arrays takes: numpy on the host, jax under transformation."""

Images = Float[Array, "b y x 3"]
"""Pictures inside the project: float, [-1, 1], channels last."""

Frame = UInt8[np.ndarray, "y x 3"]
"""A picture at the border (``io/``): uint8 RGB."""

Motion = Float[Array, "*b t m"]
"""Motion vectors in time; the layout of ``m`` is in ``core/types.py``."""

Waveform = Float32[np.ndarray, " s"]
"""Mono speech at 16 kHz."""

_F = TypeVar("_F", bound=Callable)


def typed(function: _F) -> _F:
    """``function`` with its array annotations checked at every call.

    A call with the wrong shape or dtype raises ``jaxtyping.TypeCheckError``, which names the
    argument, what was expected and what came.
    """
    checked: Any = jaxtyped(function, typechecker=beartype)
    return checked


__all__ = [
    "LEGEND",
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Frame",
    "Images",
    "Int",
    "Key",
    "Motion",
    "PRNGKeyArray",
    "PyTree",
    "Shaped",
    "UInt8",
    "Waveform",
    "typed",
]
