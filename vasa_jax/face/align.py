"""Squares around heads: cutting one out of a picture, and putting a rendered one back.

A crop is an axis-aligned square, so that shoulders and background stay where they are. Its size
and place come from the landmarks alone; all stations (training data, fitting, rendering) use the
same rule, ``crop_from_landmarks``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

HEIGHTS_PER_CROP = 1.9  # side of the crop in face heights: hair, chin and some neck
LIFT = 0.06  # the crop's centre lies this many face heights above the box's
WIDTH_TO_HEIGHT = 1.15  # a face seen in profile or looking down is measured by its width


@dataclasses.dataclass(frozen=True)
class Crop:
    """An axis-aligned square: centre and side in px of the picture (continuous coordinates)."""

    cx: float
    cy: float
    size: float

    @property
    def corner(self) -> tuple[float, float]:
        """x, y of the upper left corner."""
        return self.cx - self.size / 2, self.cy - self.size / 2


def crop_from_landmarks(landmarks: np.ndarray) -> Crop:
    """The square around a head from its landmarks (478 or 468, 2 or 3) in px."""
    xy = np.asarray(landmarks, np.float64)[:468, :2]
    low, high = xy.min(0), xy.max(0)
    width, height = high - low
    h = max(height, WIDTH_TO_HEIGHT * width, 1.0)
    cx, cy = (low + high) / 2
    return Crop(float(cx), float(cy - LIFT * h), float(HEIGHTS_PER_CROP * h))


def to_crop(landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """Landmarks in px -> [0, 1] of the crop, float32; a z column is divided by the crop's side."""
    out = np.array(landmarks, np.float32)
    out[..., :2] -= np.array(crop.corner, np.float32)
    return out / np.float32(crop.size)


def from_crop(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Inverse of ``to_crop``."""
    out = np.array(points, np.float32) * np.float32(crop.size)
    out[..., :2] += np.array(crop.corner, np.float32)
    return out


def extract(image_u8: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop as uint8 (size, size, 3): antialiased, the border repeated outside the picture."""
    x0, y0 = crop.corner
    left, top = int(np.floor(x0)) - 2, int(np.floor(y0)) - 2
    right, bottom = int(np.ceil(x0 + crop.size)) + 2, int(np.ceil(y0 + crop.size)) + 2
    height, width = image_u8.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        patch = image_u8[top:bottom, left:right]
    else:
        ys = np.arange(top, bottom).clip(0, height - 1)
        xs = np.arange(left, right).clip(0, width - 1)
        patch = image_u8[ys][:, xs]
    box = (x0 - left, y0 - top, x0 - left + crop.size, y0 - top + crop.size)
    picture = Image.fromarray(np.ascontiguousarray(patch))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
