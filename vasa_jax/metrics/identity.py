"""Is it still the same person? Face recognition nets as judges.

Three judges, all on crops aligned by the landmarks:

``mobileface``  256 numbers; sharp (different people near 0); the default.
``faceres``     1024 numbers; softer, steadier on drawings and blur.
``dlib``        128 numbers; optional packages ``dlib-bin`` and ``face-recognition-models``; the
                only one that no loss of ours can ever have trained against.

Losses may use ``mobileface``, so a verdict that counts should rest on the other two as well.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.face.find import align
from vasa_jax.face.find.recognition import (
    aligned_crop,
    five_points,
    load_faceres,
    load_mobileface,
)

CROP_SIZE = 256
BATCH = 8

Embed = Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]


def _face_square(image_u8: np.ndarray, landmarks_L3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head's square at 256 px, and the five points in it."""
    crop = align.crop_from_landmarks(landmarks_L3)
    square = align.extract(image_u8, crop, CROP_SIZE)
    return square, five_points(align.to_crop(landmarks_L3, crop))[..., :2] * CROP_SIZE


def _jax_judge(net: Callable[[Any], Any], size: int) -> Embed:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(images_BYXC: Any, points_B52: Any) -> Any:
        return net(aligned_crop(images_BYXC.astype(jnp.float32) / 127.5 - 1, points_B52, size))

    def embed(images: list[np.ndarray], landmarks: list[np.ndarray]) -> np.ndarray:
        out = []
        for i in range(0, len(images), BATCH):
            pairs = [
                _face_square(image, lm)
                for image, lm in zip(images[i : i + BATCH], landmarks[i : i + BATCH], strict=True)
            ]
            missing = BATCH - len(pairs)  # a fixed batch keeps it at one compilation
            squares = np.stack([p[0] for p in pairs] + [pairs[-1][0]] * missing)
            points = np.stack([p[1] for p in pairs] + [pairs[-1][1]] * missing)
            out.append(np.asarray(run(squares, points))[: len(pairs)])
        return np.concatenate(out)

    return embed


def _dlib_judge() -> Embed:
    spec = importlib.util.find_spec("face_recognition_models")
    try:
        import dlib
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError("the dlib judge needs: pip install dlib-bin face-recognition-models")
    folder = Path(spec.origin).parent / "models"
    points = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
    net = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def embed(images: list[np.ndarray], landmarks: list[np.ndarray]) -> np.ndarray:
        out = []
        for image, lm in zip(images, landmarks, strict=True):
            crop = align.crop_from_landmarks(lm)
            square = np.ascontiguousarray(align.extract(image, crop, CROP_SIZE))
            xy = align.to_crop(lm, crop)[:468, :2] * CROP_SIZE
            # dlib's detector boxes run from the brows to below the mouth.
            x0, x1 = int(xy[:, 0].min()), int(xy[:, 0].max())
            y0, y1 = int(xy[105, 1]), int(xy[152, 1])
            shape = points(square, dlib.rectangle(x0, y0, x1, y1))
            out.append(np.asarray(net.compute_face_descriptor(square, shape)))
        code = np.array(out)
        return code / np.linalg.norm(code, axis=1, keepdims=True)

    return embed


@functools.cache
def load_judge(name: str) -> Embed:
    """``fn(images_u8, landmarks) -> (N, D)`` unit vectors, one per picture; see the module's top.

    Raises:
        UserError: unknown name, or the net is neither cached nor to be had.
    """
    if name == "mobileface":
        return _jax_judge(load_mobileface(), 112)
    if name == "faceres":
        return _jax_judge(load_faceres(), 224)
    if name == "dlib":
        return _dlib_judge()
    raise UserError(f"no identity judge {name!r}; choose mobileface, faceres or dlib")


def position(value: float, *, same: float, different: float) -> float:
    """Where a similarity lies: 0 at the mean of different people, 1 at that of the same person."""
    return float((value - different) / (same - different))


def equal_error_threshold(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """The similarity at which as many same pairs are refused as different pairs are accepted.

    Returns the threshold and the error rate there.
    """
    same, different = np.sort(same), np.sort(different)
    candidates = np.unique(np.concatenate([same, different]))
    refused = np.searchsorted(same, candidates, "left") / len(same)
    accepted = 1 - np.searchsorted(different, candidates, "left") / len(different)
    i = int(np.argmin(np.abs(refused - accepted)))
    return float(candidates[i]), float((refused[i] + accepted[i]) / 2)
