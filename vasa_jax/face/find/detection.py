"""Proposals of faces: two BlazeFace nets (arXiv 1907.05047) over squares of a picture.

Nets see a square of fixed size. ``Picture.warp`` cuts any square (``Roi``) out of a picture for
them, ``Detector`` says where in it faces may be, ``tiles`` lays squares over a picture so that
every small face lies whole in one of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ASSETS = Path(__file__).parent / "assets"

NEARLY_BLACK = 56  # grey level that the brightest part of a square stays below

_LOAD_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Roi:
    """A rotated square in a picture: centre and side in px, ``angle`` of its x axis in rad."""

    cx: float
    cy: float
    size: float
    angle: float = 0.0

    def to_picture(self, uv: np.ndarray) -> np.ndarray:
        """Points (..., 2) in [0, 1] of the square -> pixels of the picture."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        d = (np.asarray(uv, np.float32) - 0.5) * self.size
        return np.stack(
            [self.cx + d[..., 0] * c - d[..., 1] * s, self.cy + d[..., 0] * s + d[..., 1] * c], -1
        )


class Picture:
    """An image and its half, quarter, ... sizes, made when first asked for."""

    def __init__(self, image_u8: np.ndarray):
        if image_u8.ndim != 3 or image_u8.shape[-1] != 3 or image_u8.dtype != np.uint8:
            raise ValueError(f"need uint8 (Y, X, 3), got {image_u8.dtype} {image_u8.shape}")
        self.height, self.width = image_u8.shape[:2]
        self._levels = [image_u8]

    def square(self, times: float = 1.0) -> Roi:
        """The square around the picture, ``times`` as large as its longer side."""
        return Roi(self.width / 2, self.height / 2, max(self.width, self.height) * times)

    def _level(self, n: int) -> np.ndarray:
        while len(self._levels) <= n:
            a = self._levels[-1]
            if min(a.shape[:2]) < 2:
                break
            even = a[: a.shape[0] // 2 * 2, : a.shape[1] // 2 * 2]
            self._levels.append(np.asarray(Image.fromarray(even).reduce(2)))
        return self._levels[min(n, len(self._levels) - 1)]

    def warp(self, roi: Roi, out: int, *, outside: str) -> np.ndarray:
        """The square ``roi`` as uint8 (out, out, 3), bilinear from the nearest larger level.

        ``outside`` is what lies beyond the picture: "edge" repeats its border, "black" is zero.
        """
        level = max(0, int(np.floor(np.log2(max(roi.size / out, 1e-6)))))
        a = self._level(level)
        k = self.width / a.shape[1], self.height / a.shape[0]
        corners = roi.to_picture(np.array([[0, 0], [1, 0], [0, 1], [1, 1]])) / k
        x0, y0 = np.floor(corners.min(0)).astype(int) - 1
        x1, y1 = np.ceil(corners.max(0)).astype(int) + 2
        inside = x0 >= 0 and y0 >= 0 and x1 <= a.shape[1] and y1 <= a.shape[0]
        if inside:
            patch = a[y0:y1, x0:x1]
        else:
            xs, ys = np.arange(x0, x1), np.arange(y0, y1)
            patch = a[ys.clip(0, a.shape[0] - 1)][:, xs.clip(0, a.shape[1] - 1)]
            if outside == "black":
                patch[(ys < 0) | (ys >= a.shape[0])] = 0
                patch[:, (xs < 0) | (xs >= a.shape[1])] = 0
        c, s = np.cos(roi.angle) * roi.size / out, np.sin(roi.angle) * roi.size / out
        tx = (roi.cx - (c - s) * out / 2) / k[0] - x0
        ty = (roi.cy - (s + c) * out / 2) / k[1] - y0
        affine = (c / k[0], -s / k[0], tx, s / k[1], c / k[1], ty)
        picture = Image.fromarray(np.ascontiguousarray(patch))
        return np.asarray(
            picture.transform((out, out), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The runtime announces its delegate on stderr from C++; users need not read that."""
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class Net:
    """One .tflite file as a function of a float32 image; outputs keyed by their size."""

    def __init__(self, name: str):
        from ai_edge_litert.interpreter import Interpreter

        with _LOAD_LOCK, _quiet_stderr():
            self._net: Any = Interpreter(str(ASSETS / f"{name}.tflite"), num_threads=1)
            self._net.allocate_tensors()
        self._in = self._net.get_input_details()[0]["index"]
        self._out = [d["index"] for d in self._net.get_output_details()]

    def __call__(self, image: np.ndarray) -> dict[int, np.ndarray]:
        self._net.set_tensor(self._in, image[None])
        self._net.invoke()
        outputs = [self._net.get_tensor(i) for i in self._out]
        return {o.size: o[0] for o in outputs}


def sigmoid(x: np.ndarray | float) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))


def anchor_centres(size: int, strides: tuple[int, ...], per_cell: tuple[int, ...]) -> np.ndarray:
    """BlazeFace's fixed-size anchors: centres (N, 2) in [0, 1], ``per_cell`` at each grid cell."""
    centres = []
    for stride, count in zip(strides, per_cell, strict=True):
        n = size // stride
        y, x = np.mgrid[:n, :n]
        grid = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / n
        centres.append(np.repeat(grid, count, axis=0))
    return np.concatenate(centres).astype(np.float32)


def lit(image_u8: np.ndarray) -> np.ndarray:
    """What a net is shown of a nearly black picture: brighter, as if it had been well exposed.

    The nets were trained on faces that people can see. Others stay as they are.
    """
    brightest = float(np.percentile(image_u8[::4, ::4].max(-1), 98))
    if brightest >= NEARLY_BLACK or brightest < 1:
        return image_u8
    brighter = image_u8.astype(np.float32) * np.float32(min(200.0 / brightest, 40.0))
    return np.minimum(brighter, np.float32(255.0)).astype(np.uint8)


class Detector:
    """BlazeFace: proposals in one square of a picture."""

    def __init__(
        self, name: str, size: int, strides: tuple[int, ...], per_cell: tuple[int, ...]
    ) -> None:
        self._net, self._size = Net(name), size
        self._anchors = anchor_centres(size, strides, per_cell)

    def __call__(self, picture: Picture, roi: Roi, min_score: float) -> np.ndarray:
        """Proposals (N, 17) in px: score, box x0 y0 x1 y1, then six key points x y."""
        image = lit(picture.warp(roi, self._size, outside="black"))
        out = self._net(image.astype(np.float32) / np.float32(127.5) - np.float32(1.0))
        n = len(self._anchors)
        scores = sigmoid(out[n].reshape(-1))
        keep = scores >= min_score
        raw = out[n * 16].reshape(-1, 16)[keep] / self._size
        points = raw.reshape(-1, 8, 2).copy()
        points[:, 0] += self._anchors[keep]
        points[:, 2:] += self._anchors[keep, None]
        half = points[:, 1] / 2
        box = np.concatenate([points[:, 0] - half, points[:, 0] + half], -1)
        # Weighted suppression blends boxes, so it runs on the square before going to the picture.
        found = suppress(
            np.concatenate([scores[keep, None], box, points[:, 2:].reshape(-1, 12)], -1)
        )
        xy = roi.to_picture(found[:, 1:].reshape(-1, 8, 2)).reshape(-1, 16)
        return np.concatenate([found[:, :1], xy], -1).astype(np.float32)


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of ``box`` (4,) with ``others`` (N, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1)
    return both / np.maximum(area - both, 1e-9)


def suppress(found: np.ndarray, overlap: float = 0.3) -> np.ndarray:
    """Overlapping proposals blended by score (arXiv 1907.05047, section 4), best first."""
    left, kept = found[np.argsort(-found[:, 0])], []
    while len(left):
        same = iou(left[0, 1:5], left[:, 1:5]) > overlap
        same[0] = True
        group = left[same]
        blend = (group * group[:, :1]).sum(0) / group[:, 0].sum()
        blend[0] = group[0, 0]
        kept.append(blend)
        left = left[~same]
    return np.stack(kept) if kept else found


FINEST_TILE = 480  # px; in smaller ones there would be faces with too few pixels to speak
TILE_OVERLAP = 0.25  # of the side: more than the faces that the next larger square may miss


def tiles(width: int, height: int) -> list[Roi]:
    """Overlapping squares over a picture, of a half, a quarter, ... of its longer side.

    The full-range net is sure of faces of more than 0.08 of its square (57 of 58 portraits, and of
    0.05 in 49), so that each halving adds the next smaller octave. None where the picture is small.
    """
    longer = max(width, height)
    octaves = max(0, int(np.ceil(np.log2(longer / FINEST_TILE) - 0.25)))
    found = []
    for octave in range(1, octaves + 1):
        side = longer / 2**octave
        xs, ys = (_centres(length, side) for length in (width, height))
        found += [Roi(float(x), float(y), side) for y in ys for x in xs]
    return found


def _centres(length: int, side: float) -> np.ndarray:
    if length <= side:
        return np.array([length / 2])
    overlap = TILE_OVERLAP * side
    count = int(np.ceil((length - overlap) / (side - overlap)))
    return np.linspace(side / 2, length - side / 2, count)


def whole_in(tile: Roi, found: np.ndarray, width: int, height: int) -> np.ndarray:
    """Which proposals (N, 17) no border of the tile cuts, but for the picture's own: bool (N,)."""
    half, slack = tile.size / 2, tile.size / 100
    left, right = tile.cx - half, tile.cx + half
    top, bottom = tile.cy - half, tile.cy + half
    x0, y0, x1, y1 = found[:, 1:5].T
    return (
        ((x0 > left + slack) | (left <= 0))
        & ((x1 < right - slack) | (right >= width))
        & ((y0 > top + slack) | (top <= 0))
        & ((y1 < bottom - slack) | (bottom >= height))
    )
