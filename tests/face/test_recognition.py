"""Alignment for recognition, against a transform that is known."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.face.find.recognition import TEMPLATE_112, aligned_crop, five_points, similarity_to

pytestmark = pytest.mark.usefixtures("broadcasting")


def _moved(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]], np.float32)


def test_similarity_is_recovered():
    want = _moved(0.3, 1.7, (20, -5))
    points = TEMPLATE_112 @ want[:, :2].T + want[:, 2]
    got = similarity_to(points[None], TEMPLATE_112)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_crop_samples_the_picture_where_the_points_are():
    # In a picture whose colours are its own coordinates, the crop shows where it looked.
    y, x = np.mgrid[:200, :240].astype(np.float32) + 0.5
    image = np.stack([x, y, np.zeros_like(x)], -1)
    m = _moved(-0.2, 1.2, (50, 30))
    points = TEMPLATE_112 @ m[:, :2].T + m[:, 2]
    crop = np.asarray(aligned_crop(image[None], points[None]))[0]
    for u, v in ((40, 50), (70, 90), (56, 60)):
        want = m[:, :2] @ (u + 0.5, v + 0.5) + m[:, 2]
        np.testing.assert_allclose(crop[v, u, :2], want, atol=1e-2)


def test_five_points_follow_the_mesh():
    mesh = np.zeros((478, 3), np.float32)
    mesh[33], mesh[133], mesh[1] = (10, 20, 0), (20, 22, 0), (5, 6, 7)
    points = five_points(mesh)
    np.testing.assert_allclose(points[0], (15, 21))
    np.testing.assert_allclose(points[2], (5, 6))
