"""A face on the device with its compiled functions: portraits are prepared, motions drawn."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from vasa_jax.face.head.fit import FaceFit, fit_portrait
from vasa_jax.face.head.head import Head
from vasa_jax.face.model import FaceModel, from_uint8, to_uint8
from vasa_jax.face.warp.detail import enlarged
from vasa_jax.runtime.programs import Program


class Drawer:
    """Any face (``face/faces.py``) and its weights; thread-safe."""

    def __init__(self, face: FaceModel, params: Any, head: Head):
        """``head`` is the face's on the host, to fit portraits with."""
        self.face, self.head = face, head
        self.face_params = jax.device_put(params)
        self.render = Program(self._render, closed_over=face.fixed)
        self.render_fine = Program(self._render_fine, closed_over=face.fixed)

    @property
    def size(self) -> int:
        """Side of the model's square in px."""
        return self.face.size

    def prepare(self, square_u8: np.ndarray, landmarks_01: np.ndarray) -> tuple[FaceFit, Any]:
        """Fit and appearance of a square (Y, X, 3) with landmarks (478, 3) in [0, 1] of it."""
        fit = fit_portrait(self.head, landmarks_01)
        encode = self.face.encode_appearance
        return fit, encode(self.face_params, self.face.head, from_uint8(square_u8), fit)

    def rest(self, appearance: Any) -> np.ndarray:
        """The motion (M,) of a portrait that rests."""
        return np.asarray(self.face.rest(appearance), np.float32)

    def draw(self, appearance: Any, motion_BM: np.ndarray) -> np.ndarray:
        """The model's squares uint8 (B, Y, X, 3) of driving motions; compiled for each B."""
        return np.asarray(self.render(self.face_params, self.face.head, appearance, motion_BM))

    def draw_fine(
        self, appearance: Any, detail_RR3: Any, motion_BM: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``draw``, and the same twice as large with the portrait's detail.

        Where a face does not know what its pixels are from, there is no larger one, and both are
        the same.
        """
        given = self.face_params, self.face.head, appearance, detail_RR3, motion_BM
        square, fine = self.render_fine(*given)
        square = np.asarray(square)
        return square, square if fine is None else np.asarray(fine)

    def _render(self, params: Any, head: Any, appearance: Any, motion_BM: Any) -> Any:
        return to_uint8(self.face.render(params, head, appearance, motion_BM).image)

    def _render_fine(
        self, params: Any, head: Any, appearance: Any, detail_RR3: Any, motion_BM: Any
    ) -> tuple[Any, Any]:
        image, _, origin = self.face.render(params, head, appearance, motion_BM, traced=True)
        if origin is None:
            return to_uint8(image), None
        # Lest the enlargement find every pixel anew.
        image, origin = jax.lax.optimization_barrier((image, origin))
        fine = enlarged(image, detail_RR3, appearance.mouth, origin)
        return to_uint8(image), to_uint8(fine)
