"""One contract for every face, whatever draws it: a portrait once, then pictures from motions.

``encode_appearance`` keeps of a portrait all that drawing needs, its own pose among it. A motion is
relative to that pose (``core/types.py``) and means what the face's ``space`` says. ``render`` gives
finished squares: what lies behind the head is the face's own affair.

Both faces are in ``faces.py``, by the kind that a release names.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import Array
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.head.head import Head


class Rendered(NamedTuple):
    """Squares of B motions."""

    image: Array  # (B, Y, X, 3) in [-1, 1], whole: the background included
    matte: Array | None  # (B, Y, X) share in [0, 1] of what is no background; None: it has none
    origin: Any  # ``warp.detail.Origin``: where in the portrait a pixel is from; None: unknown


class FaceModel(Protocol):
    """Pure functions of ``(params, head, ...)`` around one configuration.

    The head's arrays are arguments, so that no program has them baked in; ``head`` is what to give.
    """

    head: Head  # on the device

    @property
    def kind(self) -> str:
        """What releases call it, see ``faces.FACES``."""

    @property
    def size(self) -> int:
        """Side of the square in px."""

    @property
    def space(self) -> MotionSpace:
        """What a motion means to it."""

    @property
    def fixed(self) -> Hashable:
        """Values that its functions use without being given them (``Program``: closed over)."""

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""

    def encode_appearance(self, params: Any, head: Head, image_YXC: Array, fit: FaceFit) -> Any:
        """All that is kept of a portrait in [-1, 1] whose face is ``fit``: a pytree.

        Compiled once per model; traceable, too.
        """

    def rest(self, appearance: Any) -> Array:
        """The motion (M,) that leaves a portrait's pose, and as far as can be its face, alone."""

    def encode_motion(
        self, params: Any, head: Head, image_BYXC: Array, fit_B: FaceFit, anchor: FaceFit
    ) -> Array:
        """Motions (B, M) of pictures whose faces are ``fit_B``, relative to another picture's fit.

        Of the fits only motion and placement are read. Traceable.
        """

    def render(
        self, params: Any, head: Head, appearance: Any, motion_BM: Array, *, traced: bool = False
    ) -> Rendered:
        """One portrait in B motions; traceable. ``traced`` asks for the origin of the pixels."""


def to_uint8(image: Array) -> Array:
    """[-1, 1] -> uint8, inside the compiled program: a quarter of the bytes to copy."""
    return jnp.clip(jnp.round((image + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def from_uint8(image: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1]."""
    return np.asarray(image, np.float32) / 127.5 - 1.0
