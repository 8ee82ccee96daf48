"""What is seen between the lips, on drawn mouths whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.metrics import open_mouth


def drawn(inside_rgb, *, half_height: float = 12.0, face: int = 100):
    """A grey face with a mouth, 60 px wide, of one colour, or of two halves side by side."""
    square = np.full((256, 256, 3), face, np.uint8)
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[:, 0], landmarks[:, 1] = 128.0, 100.0
    landmarks[33], landmarks[263] = (78, 100, 0), (178, 100, 0)
    turn = np.pi - np.linspace(0, 2 * np.pi, len(open_mouth.AROUND), endpoint=False)
    x, y = 128 + 30 * np.cos(turn), 180 + half_height * np.sin(turn)
    landmarks[list(open_mouth.AROUND), 0], landmarks[list(open_mouth.AROUND), 1] = x, y
    landmarks[10], landmarks[152] = (128, 60, 0), (128, 230, 0)
    rows = slice(round(180 - half_height) - 2, round(180 + half_height) + 2)
    left, right = inside_rgb if isinstance(inside_rgb[0], tuple) else (inside_rgb, inside_rgb)
    square[rows, 90:128], square[rows, 128:166] = left, right
    return square, landmarks


def test_the_mask_is_the_area_between_the_lips_without_its_rim():
    square, landmarks = drawn((50, 50, 50))
    area = open_mouth.inside(square, landmarks).sum()
    assert area == pytest.approx(np.pi * 29 * 11, rel=0.08)


def test_half_white_half_black_has_their_difference_as_contrast():
    got = open_mouth.measure([drawn(((20, 20, 20), (180, 180, 180)))])
    assert got["mouth_contrast"] == pytest.approx((180 - 20) / 100, rel=1e-6)
    assert got["mouth_odd_hue"] == 0.0 and got["mouth_open"] == 1.0
    even = open_mouth.measure([drawn((90, 90, 90))])
    assert even["mouth_contrast"] == pytest.approx(0.0, abs=1e-9)
    assert even["mouth_detail"] < 0.01 < got["mouth_detail"]


def test_green_and_blue_are_odd_and_flesh_and_enamel_are_not():
    assert open_mouth.measure([drawn((60, 110, 70))])["mouth_odd_hue"] == 1.0
    assert open_mouth.measure([drawn((150, 70, 70))])["mouth_odd_hue"] == 0.0
    assert open_mouth.measure([drawn((180, 182, 170))])["mouth_odd_hue"] == 0.0
    half = open_mouth.measure([drawn(((60, 60, 120), (150, 70, 70)))])
    assert half["mouth_odd_hue"] == pytest.approx(0.5, abs=0.03)


def test_shut_mouths_say_nothing():
    got = open_mouth.measure([drawn((60, 110, 70), half_height=1.0)])
    assert got == {"mouth_open": 0.0}
    assert open_mouth.measure([]) == {}
