"""What will look wrong in a portrait: drawn faces with one thing wrong each."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.face.drawn_face import drawn_face
from vasa_jax.face.find import quality
from vasa_jax.face.find.finder import FaceFinder

SKIN, HAND, BLACK = (224, 180, 150), (214, 170, 140), (25, 25, 28)


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


def _codes(finder: FaceFinder, image: np.ndarray) -> list[str]:
    (face,) = finder.find(image)
    return [flaw.code for flaw in quality.flaws(image, face)]


def _over(draw_on) -> np.ndarray:
    """The drawn face with something drawn over it, as soft as the rest."""
    image = Image.fromarray(drawn_face())
    layer = Image.new("RGBA", image.size)
    draw_on(ImageDraw.Draw(layer))
    layer = layer.filter(ImageFilter.GaussianBlur(1.5))
    image.paste(layer, mask=layer.getchannel("A"))
    return np.asarray(image)


def _microphone(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((190, 290, 290, 390), fill=BLACK)
    draw.rectangle((225, 340, 255, 480), fill=(40, 40, 42))


def _hand(draw: ImageDraw.ImageDraw) -> None:
    for k in range(4):
        top = 305 + 22 * k
        finger = (185, top, 310, top + 22)
        draw.rounded_rectangle(finger, 11, fill=HAND, outline=(160, 120, 95), width=2)
    draw.ellipse((120, 300, 215, 410), fill=HAND)


def _mask(draw: ImageDraw.ImageDraw) -> None:
    draw.polygon([(150, 265), (240, 255), (330, 265), (320, 340), (240, 395), (160, 340)],
                 fill=(120, 170, 210))  # fmt: skip


@pytest.mark.parametrize("cover", [_microphone, _hand, _mask])
def test_a_covered_mouth_is_noticed(finder, cover):
    assert "covered_mouth" in _codes(finder, _over(cover))


def test_what_lies_beside_the_mouth_is_no_cover(finder):
    assert _codes(finder, drawn_face()) == []
    assert _codes(finder, drawn_face(240)) == []
    grey = drawn_face().mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    assert _codes(finder, grey) == []

    def below(draw: ImageDraw.ImageDraw) -> None:
        draw.ellipse((190, 405, 290, 480), fill=BLACK)

    assert _codes(finder, _over(below)) == []


@pytest.mark.parametrize("mean", [0.03, 0.015])
def test_a_nearly_black_face_is_found_where_the_bright_one_is_and_said(finder, mean):
    bright = drawn_face()
    dark = (bright * (mean * 255 / bright.mean())).round().astype(np.uint8)
    (face,), (same,) = finder.find(dark), finder.find(bright)
    gap = np.hypot(*(face.landmarks - same.landmarks)[:, :2].T)
    assert gap.mean() < 4 and gap.max() < 14  # px, of a face 280 px high
    assert "dark" in [flaw.code for flaw in quality.flaws(dark, face)]


def test_a_wide_open_mouth_is_said(finder):
    def mouth(draw: ImageDraw.ImageDraw) -> None:
        draw.ellipse((205, 308, 275, 372), fill=(170, 80, 80))
        draw.ellipse((214, 316, 266, 364), fill=(50, 15, 18))

    assert _codes(finder, _over(mouth)) == ["mouth_open"]


def test_shut_eyes_are_said(finder):
    def lids(draw: ImageDraw.ImageDraw) -> None:
        for x in (195, 285):
            draw.ellipse((x - 30, 200, x + 30, 246), fill=SKIN)
            draw.arc((x - 24, 215, x + 24, 236), 10, 170, fill=(60, 40, 35), width=4)

    assert "eyes_shut" in _codes(finder, _over(lids))


def test_a_small_face_is_said(finder):
    picture = np.full((300, 300, 3), 90, np.uint8)
    picture[100:190, 100:190] = drawn_face(90)
    assert "small" in _codes(finder, picture)


def test_a_face_from_the_side_is_said(finder):
    image = drawn_face()
    (face,) = finder.find(image)
    for degrees, said in ((0, False), (15, False), (40, True), (-55, True)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        points = face.landmarks - face.landmarks[1]
        points = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
        assert abs(quality.turned(points) - degrees) < 8
        assert (abs(quality.turned(points)) > quality.SIDE_DEG) == said


def test_every_line_says_what_to_do():
    for text in quality.TEXTS.values():
        assert "\n" not in text and ("give a" in text or "brighten" in text)
