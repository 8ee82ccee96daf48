"""Squares around heads: cutting one out of a picture, and putting a rendered one back.

A crop is an axis-aligned square, so that shoulders and background stay where they are. Its size
and place come from the landmarks alone; all stations (training data, fitting, rendering) use the
same rule, ``crop_from_landmarks``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

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


def paste(image_u8: np.ndarray, crop: Crop, frame_u8: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the picture with the square ``frame_u8`` (n, n, 3) put back where ``crop`` was cut.

    ``mask`` (n, n) uint8 says how much of the frame shows, 255 all of it; what lies outside the
    picture is dropped.
    """
    return Paster(image_u8, crop, len(frame_u8)).paste(frame_u8, mask)


class Paster:
    """Puts rendered squares back into one picture so that no seam shows.

    The mask has two parts. A still one: all of the head, fading out towards those sides of the
    square that lie inside the picture. And a moving one, outside of the head: a pixel that the
    model leaves as it was keeps the picture's own sharp pixel, which is better than a 256 px copy
    of it. That part fades rather than switches, so that nothing pops.
    """

    fade = 0.10  # of the square's side
    touched = (
        5.0,
        18.0,
    )  # grey levels of change: below, the picture's own pixel; above, the frame's
    linger = 0.92  # per frame, by which a touched place falls back

    def __init__(
        self,
        image_u8: np.ndarray,
        crop: Crop,
        size: int,
        *,
        landmarks: np.ndarray | None = None,
    ):
        """``landmarks`` (px of the picture) say where the head is; else it is everywhere."""
        height, width = image_u8.shape[:2]
        x0, y0 = crop.corner
        # Whole pixels that lie inside both the square and the picture.
        self._left, self._top = max(0, int(np.ceil(x0))), max(0, int(np.ceil(y0)))
        self._right = min(width, int(np.floor(x0 + crop.size)))
        self._bottom = min(height, int(np.floor(y0 + crop.size)))
        scale = size / crop.size
        self._box = (
            max(0.0, (self._left - x0) * scale),
            max(0.0, (self._top - y0) * scale),
            min(float(size), (self._right - x0) * scale),
            min(float(size), (self._bottom - y0) * scale),
        )
        self._shape = self._right - self._left, self._bottom - self._top
        self._image = image_u8
        region = image_u8[self._top : self._bottom, self._left : self._right]
        self._region = Image.fromarray(np.ascontiguousarray(region))
        self._source = extract(image_u8, crop, size).astype(np.int16)
        cut = (y0 > 0, y0 + crop.size < height, x0 > 0, x0 + crop.size < width)
        self._border = _faded_border(size, self.fade, *cut)
        self._head = (
            np.ones((size, size), np.float32)
            if landmarks is None
            else _head_mask(to_crop(landmarks, crop)[:468, :2], size)
        )
        self._moved = np.zeros((size, size), np.float32)

    def __call__(self, frame_u8: np.ndarray) -> np.ndarray:
        """The whole picture uint8 with this frame's head; call it in the order of the frames."""
        return self.paste(frame_u8, self.mask(frame_u8))

    def mask(self, frame_u8: np.ndarray) -> np.ndarray:
        """What of the next frame is laid over the picture, uint8; also in the frames' order."""
        r, g, b = np.moveaxis(np.abs(frame_u8.astype(np.int16) - self._source), -1, 0)
        change = np.maximum(np.maximum(r, g), b).astype(np.uint8)
        blurred = np.asarray(Image.fromarray(change).filter(ImageFilter.BoxBlur(3)), np.float32)
        low, high = self.touched
        now = _smoothstep((blurred - low) / (high - low))
        self._moved = np.maximum(now, self._moved * self.linger)
        mask = np.maximum(self._head, self._moved) * self._border
        return (mask * 255.0 + 0.5).astype(np.uint8)

    def paste(self, frame_u8: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The picture with a square laid over it by ``mask`` (n, n) uint8.

        ``frame_u8`` (k, k, 3) may be finer than what the mask was made of.
        """
        out = self._image.copy()
        if min(self._shape) <= 0:
            return out
        finer = len(frame_u8) / len(mask)
        left, top, right, bottom = (side * finer for side in self._box)
        head = Image.fromarray(frame_u8).resize(
            self._shape, Image.Resampling.BICUBIC, box=(left, top, right, bottom)
        )
        alpha = Image.fromarray(mask).resize(self._shape, Image.Resampling.BILINEAR, box=self._box)
        mixed = Image.composite(head, self._region, alpha)
        out[self._top : self._bottom, self._left : self._right] = np.asarray(mixed)
        return out


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _faded_border(
    size: int, fade: float, top: bool, bottom: bool, left: bool, right: bool
) -> np.ndarray:
    """(size, size) falling to 0 at the sides that are named, 1 elsewhere."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size

    def side(low: bool, high: bool) -> np.ndarray:
        ramp = np.ones(size, np.float32)
        if low:
            ramp = ramp * _smoothstep(at / fade)
        if high:
            ramp = ramp * _smoothstep((1.0 - at) / fade)
        return ramp

    return side(top, bottom)[:, None] * side(left, right)[None, :]


def _head_mask(points_01: np.ndarray, size: int) -> np.ndarray:
    """(size, size): 1 on an ellipse around the face with hair and jaw, falling to 0 outside."""
    low, high = points_01.min(0), points_01.max(0)
    centre, half = (low + high) / 2, (high - low) / 2
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
    radius = np.hypot((x - centre[0]) / half[0], (y - centre[1]) / half[1])
    return _smoothstep((1.75 - radius) / 0.45).astype(np.float32)
