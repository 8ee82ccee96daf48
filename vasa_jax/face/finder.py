"""Where the faces in a picture are: boxes and 478 landmarks, in pixels.

Two BlazeFace detectors (arXiv 1907.05047) propose faces at several scales, a face mesh net
(arXiv 1907.06724) places 468 points on a levelled crop and says whether it sees a face at all, and
an iris net (arXiv 2006.11341) places five points on each iris and sharpens the lids. The nets come
with the package (``face/assets``); everything between them is numpy and Pillow.

Pixel coordinates are continuous: pixel (0, 0) covers [0, 1) x [0, 1), so its centre is (0.5, 0.5).
"Left" and "right" are those of the picture, as the viewer sees it.
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

NUM_MESH = 468
NUM_LANDMARKS = (
    478  # mesh, then iris of the left eye in the picture (468-472), then right (473-477)
)
LEFT_IRIS, RIGHT_IRIS = slice(468, 473), slice(473, 478)  # centre, right, top, left, bottom
LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS = (33, 133), (362, 263)
# The first 16 points of the iris net are the lids: lower from corner to corner, then upper.
LEFT_LIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
RIGHT_LIDS = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)

_LOAD_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Face:
    """One face found in a picture, coordinates in its pixels."""

    box: tuple[float, float, float, float]  # x0 y0 x1 y1 of the 468 mesh points
    score: float  # the mesh net's belief that this is a face, 0..1
    landmarks: np.ndarray  # (478, 3) float32: x right, y down, z away from the viewer

    @property
    def size(self) -> float:
        """Geometric mean of the box's sides, in pixels."""
        x0, y0, x1, y1 = self.box
        return float(np.sqrt(max(x1 - x0, 0.0) * max(y1 - y0, 0.0)))


@dataclasses.dataclass(frozen=True)
class _Roi:
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


class _Picture:
    """An image and its half, quarter, ... sizes, made when first asked for."""

    def __init__(self, image_u8: np.ndarray):
        if image_u8.ndim != 3 or image_u8.shape[-1] != 3 or image_u8.dtype != np.uint8:
            raise ValueError(f"need uint8 (Y, X, 3), got {image_u8.dtype} {image_u8.shape}")
        self.height, self.width = image_u8.shape[:2]
        self._levels = [image_u8]

    def _level(self, n: int) -> np.ndarray:
        while len(self._levels) <= n:
            a = self._levels[-1]
            if min(a.shape[:2]) < 2:
                break
            even = a[: a.shape[0] // 2 * 2, : a.shape[1] // 2 * 2]
            self._levels.append(np.asarray(Image.fromarray(even).reduce(2)))
        return self._levels[min(n, len(self._levels) - 1)]

    def warp(self, roi: _Roi, out: int, *, outside: str) -> np.ndarray:
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


class _Net:
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


def _sigmoid(x: np.ndarray | float) -> Any:
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


class _Detector:
    """BlazeFace: proposals in one square of a picture."""

    def __init__(
        self, name: str, size: int, strides: tuple[int, ...], per_cell: tuple[int, ...]
    ) -> None:
        self._net, self._size = _Net(name), size
        self._anchors = anchor_centres(size, strides, per_cell)

    def __call__(self, picture: _Picture, roi: _Roi, min_score: float) -> np.ndarray:
        """Proposals (N, 17) in px: score, box x0 y0 x1 y1, then six key points x y."""
        image = picture.warp(roi, self._size, outside="black")
        out = self._net(image.astype(np.float32) / np.float32(127.5) - np.float32(1.0))
        n = len(self._anchors)
        scores = _sigmoid(out[n].reshape(-1))
        keep = scores >= min_score
        raw = out[n * 16].reshape(-1, 16)[keep] / self._size
        points = raw.reshape(-1, 8, 2).copy()
        points[:, 0] += self._anchors[keep]
        points[:, 2:] += self._anchors[keep, None]
        half = points[:, 1] / 2
        box = np.concatenate([points[:, 0] - half, points[:, 0] + half], -1)
        # Weighted suppression blends boxes, so it runs on the square before going to the picture.
        found = _suppress(
            np.concatenate([scores[keep, None], box, points[:, 2:].reshape(-1, 12)], -1)
        )
        xy = roi.to_picture(found[:, 1:].reshape(-1, 8, 2)).reshape(-1, 16)
        return np.concatenate([found[:, :1], xy], -1).astype(np.float32)


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of ``box`` (4,) with ``others`` (N, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1)
    return both / np.maximum(area - both, 1e-9)


def _suppress(found: np.ndarray, overlap: float = 0.3) -> np.ndarray:
    """Overlapping proposals blended by score (arXiv 1907.05047, section 4), best first."""
    left, kept = found[np.argsort(-found[:, 0])], []
    while len(left):
        same = _iou(left[0, 1:5], left[:, 1:5]) > overlap
        same[0] = True
        group = left[same]
        blend = (group * group[:, :1]).sum(0) / group[:, 0].sum()
        blend[0] = group[0, 0]
        kept.append(blend)
        left = left[~same]
    return np.stack(kept) if kept else found


class FaceFinder:
    """Finds faces and their landmarks in still pictures of any size.

    Not safe to share between threads: the nets keep their buffers. Building one takes about 20 ms.
    """

    min_proposal = 0.5  # BlazeFace score on the easy scales
    min_presence = 0.5  # mesh score, after refinement

    def __init__(self) -> None:
        self._near = _Detector("face_detection_short_range", 128, (8, 16), (2, 6))
        self._far = _Detector("face_detection_full_range_sparse", 192, (4,), (1,))
        self._mesh = _Net("face_landmark")
        self._iris = _Net("iris_landmark")

    def find(self, image_u8: np.ndarray, *, max_faces: int = 16) -> list[Face]:
        """All faces of an RGB picture (Y, X, 3) uint8, the largest first; empty when there is none.

        Search goes from the whole picture to padded and tiled versions and stops at the first
        stage that yields a confirmed face, so that tight crops and small faces are both found.
        """
        picture = _Picture(image_u8)
        for stage in self._stages(picture):
            faces: list[Face] = []
            for row in stage:
                face = self._confirm(picture, _roi_from_keypoints(row))
                if face is not None and not any(_same(face, other) for other in faces):
                    faces.append(face)
                if len(faces) >= max_faces:
                    break
            if faces:
                return sorted(faces, key=lambda f: -f.size)
        return []

    def _stages(self, picture: _Picture) -> Iterator[np.ndarray]:
        """Proposals (N, 17), from the cheapest search to the most stubborn."""
        w, h = picture.width, picture.height
        long, short = max(w, h), min(w, h)
        whole = _Roi(w / 2, h / 2, long)
        near = self._near(picture, whole, self.min_proposal)
        far = self._far(picture, whole, self.min_proposal + 0.1)
        yield _suppress(np.concatenate([near, far]))
        # A face that fills the picture looks like a face only with room around it.
        wide = [_Roi(w / 2, h / 2, long * k) for k in (1.5, 2.2)]
        yield _suppress(np.concatenate([self._near(picture, r, 0.5) for r in wide]))
        # Small faces: overlapping tiles of the short side, then of half of it.
        for side in (short, short / 2):
            if side < 96 or (side == short and long < 1.2 * short):
                continue
            nx, ny = (max(1, int(np.ceil(2 * d / side)) - 1) for d in (w, h))
            tiles = [
                _Roi(x, y, side)
                for x in np.linspace(side / 2, w - side / 2, nx)
                for y in np.linspace(side / 2, h - side / 2, ny)
            ]
            yield _suppress(np.concatenate([self._far(picture, r, 0.6) for r in tiles]))
        # Drawings and statues score low; the mesh net has the last word.
        weak = [self._near(picture, r, 0.25) for r in (whole, *wide)]
        weak.append(self._far(picture, whole, 0.3))
        yield _suppress(np.concatenate(weak))

    def _confirm(self, picture: _Picture, roi: _Roi) -> Face | None:
        """Landmarks from a proposal's square, refined once; None when the mesh sees no face."""
        _, first = self._mesh_points(picture, roi)
        score, mesh = self._mesh_points(picture, _roi_from_mesh(first))
        if score < self.min_presence:
            return None
        return self._face(picture, score, mesh)

    def _face(self, picture: _Picture, score: float, mesh: np.ndarray) -> Face:
        low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return Face(box=box, score=score, landmarks=self._with_iris(picture, mesh))

    def _mesh_points(self, picture: _Picture, roi: _Roi) -> tuple[float, np.ndarray]:
        """Presence score and (468, 3) landmarks of one square; z in px, away from the viewer."""
        image = picture.warp(roi, 192, outside="edge")
        out = self._mesh(image.astype(np.float32) / np.float32(255.0))
        points = out[NUM_MESH * 3].reshape(NUM_MESH, 3) / np.float32(192.0)
        z = points[:, 2:] * np.float32(roi.size)
        mesh = np.concatenate([roi.to_picture(points[:, :2]), z], -1).astype(np.float32)
        return float(_sigmoid(out[1].reshape(()))), mesh

    def _with_iris(self, picture: _Picture, mesh: np.ndarray) -> np.ndarray:
        """(478, 3): the mesh with lids from the iris net, and both irises."""
        full = np.concatenate([mesh, np.zeros((10, 3), np.float32)])
        for lids, corners, iris, mirrored in (
            (LEFT_LIDS, LEFT_EYE_CORNERS, LEFT_IRIS, False),
            (RIGHT_LIDS, RIGHT_EYE_CORNERS, RIGHT_IRIS, True),
        ):
            a, b = mesh[corners[0], :2], mesh[corners[1], :2]
            d = b - a
            length = float(np.hypot(*d))
            if length < 1e-3:
                full[iris] = mesh[corners[0]]
                continue
            middle = (a + b) / 2
            cx, cy = map(float, middle)
            roi = _Roi(cx, cy, 2.3 * length, float(np.arctan2(d[1], d[0])))
            image = picture.warp(roi, 64, outside="edge")
            # The net knows one eye; the other is shown to it in a mirror.
            image = image[:, ::-1] if mirrored else image
            out = self._iris(np.ascontiguousarray(image, np.float32) / np.float32(255.0))
            contour = out[213].reshape(71, 3)[:16, :2] / np.float32(64.0)
            points = out[15].reshape(5, 3)[:, :2] / np.float32(64.0)
            if mirrored:
                contour[:, 0], points[:, 0] = 1 - contour[:, 0], 1 - points[:, 0]
                points = points[[0, 3, 2, 1, 4]]
            full[list(lids), :2] = roi.to_picture(contour)
            full[iris, :2] = roi.to_picture(points)
            full[iris, 2] = mesh[list(corners), 2].mean()
        return full


def _roi_from_keypoints(row: np.ndarray) -> _Roi:
    """The mesh net's square for one proposal: eyes level, 1.5 times the box."""
    left_eye, right_eye = row[5:7], row[7:9]
    d = right_eye - left_eye
    # The box is upright; in the levelled frame its longer side still covers the face.
    side = max(row[3] - row[1], row[4] - row[2])
    return _Roi(
        float(row[1] + row[3]) / 2,
        float(row[2] + row[4]) / 2,
        float(max(side, 1.0)) * 1.5,
        float(np.arctan2(d[1], d[0])),
    )


def _roi_from_mesh(mesh: np.ndarray) -> _Roi:
    """The square around known landmarks: outer eye corners level, 1.5 times their extent."""
    xy = mesh[:NUM_MESH, :2]
    d = xy[263] - xy[33]
    angle = float(np.arctan2(d[1], d[0]))
    c, s = np.cos(angle), np.sin(angle)
    level = xy @ np.array([[c, -s], [s, c]], np.float32)
    low, high = level.min(0), level.max(0)
    u, v = (low + high) / 2
    size = float(max(*(high - low), 1.0)) * 1.5
    return _Roi(float(c * u - s * v), float(s * u + c * v), size, angle)


def _same(a: Face, b: Face) -> bool:
    """Whether two faces are one: their boxes overlap more than two heads can."""
    return bool(_iou(np.array(a.box), np.array([b.box]))[0] > 0.3)


class FaceTracker:
    """One face followed through a video; finds it again after a loss.

    Each frame starts from the last one's landmarks (one mesh pass, two iris passes); a full search
    runs on the first frame and whenever the mesh net no longer sees a face.
    """

    def __init__(self, finder: FaceFinder | None = None) -> None:
        self._finder = finder or FaceFinder()
        self._last: np.ndarray | None = None

    def reset(self) -> None:
        """Forget the face: the next frame is searched in full."""
        self._last = None

    def track(self, frame_u8: np.ndarray) -> Face | None:
        """The face in this frame (Y, X, 3) uint8, or None."""
        if self._last is not None:
            picture = _Picture(frame_u8)
            score, mesh = self._finder._mesh_points(picture, _roi_from_mesh(self._last))
            if score >= self._finder.min_presence:
                self._last = mesh
                return self._finder._face(picture, score, mesh)
        faces = self._finder.find(frame_u8, max_faces=4)
        self._last = faces[0].landmarks[:NUM_MESH] if faces else None
        return faces[0] if faces else None
