"""Where the faces in a picture are: boxes and 478 landmarks, in pixels.

Two BlazeFace detectors (arXiv 1907.05047) propose faces at several scales, a face mesh net
(arXiv 1907.06724) places 468 points on a levelled crop and says whether it sees a face at all, and
an iris net (arXiv 2006.11341) places five points on each iris and sharpens the lids. The nets come
with the package (``face/find/assets``); everything between them is numpy and Pillow.

Pixel coordinates are continuous: pixel (0, 0) covers [0, 1) x [0, 1), so its centre is (0.5, 0.5).
"Left" and "right" are those of the picture, as the viewer sees it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vasa_jax.face.find.detection import (
    Detector,
    Net,
    Picture,
    Roi,
    iou,
    lit,
    sigmoid,
    suppress,
    tiles,
    whole_in,
)

NUM_MESH = 468
NUM_LANDMARKS = (
    478  # mesh, then iris of the left eye in the picture (468-472), then right (473-477)
)
LEFT_IRIS, RIGHT_IRIS = slice(468, 473), slice(473, 478)  # centre, right, top, left, bottom
LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS = (33, 133), (362, 263)
# The first 16 points of the iris net are the lids: lower from corner to corner, then upper.
LEFT_LIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
RIGHT_LIDS = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)


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


class FaceFinder:
    """Finds faces and their landmarks in still pictures of any size.

    Not safe to share between threads: the nets keep their buffers. Building one takes about 20 ms.
    """

    min_proposal = 0.5  # BlazeFace score on the easy scales
    min_presence = 0.5  # mesh score, after refinement
    sure = 0.9  # the same of one more small face, of which a picture has many places
    close = 0.2  # of the picture's longer side; beside a face so near everybody is seen from afar

    def __init__(self) -> None:
        self._near = Detector("face_detection_short_range", 128, (8, 16), (2, 6))
        self._far = Detector("face_detection_full_range_sparse", 192, (4,), (1,))
        self._mesh = Net("face_landmark")
        self._iris = Net("iris_landmark")

    def find(
        self, image_u8: np.ndarray, *, max_faces: int = 64, everybody: bool | None = None
    ) -> list[Face]:
        """The faces of an RGB picture (Y, X, 3) uint8, the largest first; empty when there is none.

        Search goes from the whole picture to padded and tiled versions until a stage yields a
        confirmed face, so that tight crops and small faces are both found. Faces of less than a
        twelfth of the picture are seen in the tiles alone, so these are searched even then, with
        ``everybody``; None decides by the size of what was found: where nobody is ``close`` it is a
        group, or a crowd.
        """
        picture = Picture(image_u8)
        faces: list[Face] = []
        for search in (self._whole, self._padded, self._tiled, self._weak):
            self._add(faces, picture, search(picture), max_faces, self.min_presence)
            if faces:
                break
        if everybody is None:
            longer = max(picture.width, picture.height)
            everybody = bool(faces) and max(f.size for f in faces) < self.close * longer
        if everybody and faces:
            proposals = self._tiled(picture, self.min_proposal)
            self._add(faces, picture, proposals, max_faces, self.sure)
        return sorted(faces, key=lambda f: -f.size)

    def _add(
        self,
        faces: list[Face],
        picture: Picture,
        proposals: np.ndarray,
        max_faces: int,
        presence: float,
    ) -> None:
        """Confirms what is proposed (N, 17) and not known yet."""
        for row in proposals:
            if len(faces) >= max_faces:
                return
            if any(_same(row[1:5], face.box) for face in faces):
                continue
            face = self._confirm(picture, _roi_from_keypoints(row), presence)
            if face is not None and not any(_same(face.box, other.box) for other in faces):
                faces.append(face)

    def _whole(self, picture: Picture) -> np.ndarray:
        near = self._near(picture, picture.square(), self.min_proposal)
        far = self._far(picture, picture.square(), self.min_proposal + 0.1)
        return suppress(np.concatenate([near, far]))

    def _padded(self, picture: Picture) -> np.ndarray:
        """A face that fills the picture looks like a face only with room around it."""
        wide = [picture.square(k) for k in (1.5, 2.2)]
        return suppress(np.concatenate([self._near(picture, r, 0.5) for r in wide]))

    def _tiled(self, picture: Picture, min_score: float = 0.6) -> np.ndarray:
        """Small faces, in squares of a half, a quarter, ... of the longer side."""
        found = [np.zeros((0, 17), np.float32)]
        for roi in tiles(picture.width, picture.height):
            rows = self._far(picture, roi, min_score)
            found.append(rows[whole_in(roi, rows, picture.width, picture.height)])
        return suppress(np.concatenate(found))

    def _weak(self, picture: Picture) -> np.ndarray:
        """Drawings and statues score low; the mesh net has the last word."""
        squares = [picture.square(k) for k in (1.0, 1.5, 2.2)]
        weak = [self._near(picture, r, 0.25) for r in squares]
        weak.append(self._far(picture, squares[0], 0.3))
        return suppress(np.concatenate(weak))

    def _confirm(self, picture: Picture, roi: Roi, presence: float) -> Face | None:
        """Landmarks from a proposal's square, refined once; None when the mesh sees no face."""
        _, first = self._mesh_points(picture, roi)
        score, mesh = self._mesh_points(picture, _roi_from_mesh(first))
        if score < presence:
            return None
        return self._face(picture, score, mesh)

    def _face(self, picture: Picture, score: float, mesh: np.ndarray) -> Face:
        low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return Face(box=box, score=score, landmarks=self._with_iris(picture, mesh))

    def _mesh_points(self, picture: Picture, roi: Roi) -> tuple[float, np.ndarray]:
        """Presence score and (468, 3) landmarks of one square; z in px, away from the viewer."""
        image = lit(picture.warp(roi, 192, outside="edge"))
        out = self._mesh(image.astype(np.float32) / np.float32(255.0))
        points = out[NUM_MESH * 3].reshape(NUM_MESH, 3) / np.float32(192.0)
        z = points[:, 2:] * np.float32(roi.size)
        mesh = np.concatenate([roi.to_picture(points[:, :2]), z], -1).astype(np.float32)
        return float(sigmoid(out[1].reshape(()))), mesh

    def _with_iris(self, picture: Picture, mesh: np.ndarray) -> np.ndarray:
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
            roi = Roi(cx, cy, 2.3 * length, float(np.arctan2(d[1], d[0])))
            image = lit(picture.warp(roi, 64, outside="edge"))
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


def _roi_from_keypoints(row: np.ndarray) -> Roi:
    """The mesh net's square for one proposal: eyes level, 1.5 times the box."""
    left_eye, right_eye = row[5:7], row[7:9]
    d = right_eye - left_eye
    # The box is upright; in the levelled frame its longer side still covers the face.
    side = max(row[3] - row[1], row[4] - row[2])
    return Roi(
        float(row[1] + row[3]) / 2,
        float(row[2] + row[4]) / 2,
        float(max(side, 1.0)) * 1.5,
        float(np.arctan2(d[1], d[0])),
    )


def _roi_from_mesh(mesh: np.ndarray) -> Roi:
    """The square around known landmarks: outer eye corners level, 1.5 times their extent."""
    xy = mesh[:NUM_MESH, :2]
    d = xy[263] - xy[33]
    angle = float(np.arctan2(d[1], d[0]))
    c, s = np.cos(angle), np.sin(angle)
    level = xy @ np.array([[c, -s], [s, c]], np.float32)
    low, high = level.min(0), level.max(0)
    u, v = (low + high) / 2
    size = float(max(*(high - low), 1.0)) * 1.5
    return Roi(float(c * u - s * v), float(s * u + c * v), size, angle)


def _same(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> bool:
    """Whether two boxes are one face: they overlap, or lie, more than those of two heads can."""
    one, other = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if iou(one, other[None])[0] > 0.3:
        return True
    middles = (one[:2] + one[2:]) / 2, (other[:2] + other[2:]) / 2
    return any(
        bool((low < middle).all() and (middle < high).all())
        for middle, low, high in (
            (middles[0], other[:2], other[2:]), (middles[1], one[:2], one[2:]),
        )
    )  # fmt: skip


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
            picture = Picture(frame_u8)
            score, mesh = self._finder._mesh_points(picture, _roi_from_mesh(self._last))
            if score >= self._finder.min_presence:
                self._last = mesh
                return self._finder._face(picture, score, mesh)
        faces = self._finder.find(frame_u8, max_faces=4, everybody=False)
        self._last = faces[0].landmarks[:NUM_MESH] if faces else None
        return faces[0] if faces else None
