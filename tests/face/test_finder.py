"""The finder against a face whose parts are drawn at known places."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.face.drawn_face import drawn_face
from vasa_jax.face.find.detection import anchor_centres, tiles
from vasa_jax.face.find.finder import FaceFinder, FaceTracker

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


def _group(width: int, height: int, side: int, places: list[tuple[int, int]]) -> np.ndarray:
    picture = np.full((height, width, 3), 90, np.uint8)
    for x, y in places:
        picture[y : y + side, x : x + side] = drawn_face(side)
    return picture


def _reached(faces, side: int, places: list[tuple[int, int]]) -> int:
    """How many of the places hold the middle of a face's eyes, each of one face alone."""
    eyes = [face.landmarks[[468, 473], :2].mean(0) for face in faces]
    near = [
        sum(bool(np.hypot(*(e - (x + side / 2, y + side * 223.5 / 480))) < 0.06 * side)
            for e in eyes) for x, y in places
    ]  # fmt: skip
    return near.count(1)


@pytest.mark.parametrize(
    "width, height, side, places",
    [
        (2000, 900, 160, [(110, 600), (480, 620), (905, 610), (1290, 595), (1650, 605)]),
        (1920, 432, 77, [(50, 290), (430, 300), (900, 295), (1290, 290), (1760, 300)]),
        # Somebody in front, whom every search finds, must not hide those behind.
        (1600, 1000, 100, [(40, 60), (340, 50), (1380, 420), (1400, 60)]),
        (1200, 1600, 120, [(x, y) for x in (40, 380, 720, 1060) for y in (90, 590, 1190)]),
    ],
    ids=["five", "five in a strip", "behind", "twelve"],
)
def test_everybody_in_a_group_is_found_once(finder, width, height, side, places):
    picture = _group(width, height, side, places)
    if len(places) == 4:
        picture[300:1000, 450:1150] = drawn_face(700)
    faces = finder.find(picture, everybody=True)
    assert _reached(faces, side, places) == len(places)
    assert len(faces) == len(places) + (len(places) == 4)
    if len(places) > 4:  # without being asked for all, too
        assert len(finder.find(picture)) == len(places)


def test_one_portrait_costs_no_search_for_others(finder, monkeypatch):
    def never(*unused):
        raise AssertionError("tiles were searched")

    monkeypatch.setattr(FaceFinder, "_tiled", never)
    assert len(finder.find(_placed(drawn_face(900), 400, 60, 1500, 1000))) == 1


def test_a_portrait_on_a_busy_wall_is_one_face(finder):
    noise = np.random.default_rng(3).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    wall = np.asarray(Image.fromarray(noise).resize((1600, 960), Image.Resampling.BICUBIC)).copy()
    wall[500:700, 900:1100] = drawn_face(200)
    (face,) = finder.find(wall, everybody=True)
    assert 900 < face.box[0] and face.box[2] < 1100


def test_tiles_hold_every_small_face_whole():
    rng = np.random.default_rng(0)
    for width, height in ((1920, 1080), (1920, 300), (700, 1920), (1300, 1300)):
        squares = tiles(width, height)
        sides = sorted({roi.size for roi in squares}, reverse=True)
        for bigger, side in zip([max(width, height), *sides], sides, strict=False):
            face = 0.08 * bigger * 1.25  # what the bigger square is not sure of, and a margin
            for x, y in rng.uniform(0, 1, (200, 2)) * (width - face, max(0, height - face)):
                assert any(
                    roi.cx - side / 2 <= x + 1e-6 and x + face <= roi.cx + side / 2 + 1e-6
                    and roi.cy - side / 2 <= y + 1e-6 and y + face <= roi.cy + side / 2 + 1e-6
                    for roi in squares if roi.size == side
                )  # fmt: skip
    assert tiles(640, 480) and not tiles(512, 512)


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
