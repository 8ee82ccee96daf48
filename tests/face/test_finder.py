"""The finder against a face whose parts are drawn at known places."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.face.drawn_face import drawn_face
from vasa_jax.face.finder import FaceFinder, FaceTracker, anchor_centres

# Where the drawing has them, px at a side of 480.
LEFT_IRIS, RIGHT_IRIS = (195.0, 223.5), (285.0, 223.5)
LEFT_MOUTH, RIGHT_MOUTH, CHIN = (201.0, 334.0), (279.0, 334.0), (240.0, 392.0)


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


def _placed(face: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    canvas = np.full((height, width, 3), 90, np.uint8)
    canvas[y : y + face.shape[0], x : x + face.shape[1]] = face
    return canvas


def test_landmarks_lie_where_the_parts_were_drawn(finder):
    (face,) = finder.find(drawn_face())
    assert face.landmarks.shape == (478, 3)
    for index, wanted in (
        (468, LEFT_IRIS), (473, RIGHT_IRIS), (61, LEFT_MOUTH), (291, RIGHT_MOUTH), (152, CHIN),
    ):  # fmt: skip
        assert np.hypot(*(face.landmarks[index, :2] - wanted)) < 9, index


def test_iris_points_go_right_top_left_bottom_on_both_eyes(finder):
    (face,) = finder.find(drawn_face())
    for first in (468, 473):
        centre, right, top, left, bottom = face.landmarks[first : first + 5, :2]
        assert left[0] < centre[0] < right[0]
        assert top[1] < centre[1] < bottom[1]


def test_depth_is_smaller_towards_the_viewer(finder):
    (face,) = finder.find(drawn_face())
    nose, left_ear, right_ear = face.landmarks[[1, 234, 454], 2]
    assert nose < min(left_ear, right_ear)


@pytest.mark.parametrize("side", [70, 160, 480])
def test_a_face_is_found_at_any_size_and_place(finder, side):
    picture = _placed(drawn_face(side), 610, 150, 1280, 720)
    (face,) = finder.find(picture)
    centre = face.landmarks[[468, 473], :2].mean(0)
    wanted = np.array([610, 150]) + np.array([240, 223.5]) * side / 480
    assert np.hypot(*(centre - wanted)) < 0.03 * side + 1


def test_a_face_that_fills_the_picture_is_found(finder):
    tight = np.ascontiguousarray(drawn_face()[125:395, 140:340])
    assert len(finder.find(tight)) == 1


def test_a_tilted_head_keeps_its_landmarks(finder):
    tilted = np.asarray(Image.fromarray(drawn_face()).rotate(25, fillcolor=(170, 170, 190)))
    (face,) = finder.find(tilted)
    (upright,) = finder.find(drawn_face())
    a = np.radians(25)  # counter-clockwise on the screen, about the centre
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    wanted = (upright.landmarks[:, :2] - 240) @ turn.T + 240
    # A mirror-symmetric drawing has no depth, so points on the oval may slide; the features stay.
    for index in (468, 473, 61, 291, 1):
        assert np.hypot(*(face.landmarks[index, :2] - wanted[index])) < 8, index


def test_the_largest_face_comes_first(finder):
    picture = _placed(drawn_face(400), 700, 200, 1200, 700)
    picture[100:350, 100:350] = drawn_face(250)
    large, small = finder.find(picture)
    assert large.size > small.size
    assert large.box[0] > 700 > small.box[2]


def _landscape() -> np.ndarray:
    y, x = np.mgrid[:360, :480]
    hills = 190 + 30 * np.sin(x / 60) + 12 * np.sin(x / 17)
    sky, grass = np.array([120, 170, 230]), np.array([60, 120, 50])
    return np.where((y > hills)[..., None], grass, sky).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((300, 400, 3), 180, np.uint8),
        np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((8, 700, 3), np.uint8),
        _landscape(),
    ],
    ids=["wall", "noise", "pixel", "strip", "landscape"],
)
def test_no_face_is_found_where_there_is_none(finder, picture):
    assert finder.find(picture) == []


def test_the_tracker_follows_and_finds_again_after_a_loss(finder):
    tracker = FaceTracker(finder)
    face, nothing = drawn_face(300), np.full((480, 640, 3), 90, np.uint8)
    for x in (50, 56, 62):
        found = tracker.track(_placed(face, x, 60, 640, 480))
        assert found is not None
        assert abs(found.landmarks[468, 0] - (x + 195 * 300 / 480)) < 6
    assert tracker.track(nothing) is None
    assert tracker.track(_placed(face, 300, 100, 640, 480)) is not None


def test_anchors_cover_the_square_as_the_net_counts_them():
    near = anchor_centres(128, (8, 16), (2, 6))
    assert near.shape == (896, 2)  # 16 * 16 * 2 + 8 * 8 * 6
    np.testing.assert_allclose(near[:4], [[1 / 32] * 2] * 2 + [[3 / 32, 1 / 32]] * 2)
    np.testing.assert_allclose(near[512], [1 / 16, 1 / 16])
