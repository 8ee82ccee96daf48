from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.face.find import align
from vasa_jax.face.find.align import Crop


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 160 // 2 + 60], -1).astype(
        np.uint8
    )


def _face_points() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 478)
    return np.stack([200 + 60 * np.cos(angle), 150 + 80 * np.sin(angle), 0 * angle], -1)


def test_the_crop_follows_its_formula():
    crop = align.crop_from_landmarks(_face_points())
    assert crop.size == pytest.approx(1.9 * 160, rel=1e-3)
    assert crop.cx == pytest.approx(200, abs=0.1)
    assert crop.cy == pytest.approx(150 - 0.06 * 160, abs=0.1)


def test_points_survive_the_way_into_the_crop_and_back():
    points, crop = np.random.default_rng(0).uniform(0, 300, (478, 3)), Crop(120.5, 90.25, 77.0)
    back = align.from_crop(align.to_crop(points, crop), crop)
    np.testing.assert_allclose(back, points, atol=1e-3)


def test_extract_puts_pixels_where_to_crop_says():
    image = np.zeros((200, 300, 3), np.uint8)
    image[90:94, 140:144] = 255
    crop = Crop(150.0, 100.0, 64.0)
    square = align.extract(image, crop, 256)
    y, x = np.nonzero(square[..., 0] > 128)
    found = np.array([x.mean() + 0.5, y.mean() + 0.5]) / 256
    wanted = align.to_crop(np.array([[142.0, 92.0]]), crop)[0]
    np.testing.assert_allclose(found, wanted, atol=1 / 256)


def test_the_border_is_repeated_outside_the_picture():
    image = np.full((50, 50, 3), 77, np.uint8)
    assert (align.extract(image, Crop(0.0, 0.0, 80.0), 64) == 77).all()


@pytest.mark.parametrize("crop", [Crop(150.3, 110.7, 121.6), Crop(20.0, 30.0, 128.0)])
def test_pasting_the_unchanged_crop_changes_nothing(crop):
    image = _smooth(220, 300)
    square = align.extract(image, crop, 256)
    for out in (
        align.paste(image, crop, square, np.full((256, 256), 255, np.uint8)),
        align.Paster(image, crop, 256)(square),
    ):
        change = np.abs(out.astype(int) - image.astype(int))
        # The picture's own hard edges may ring by a few levels where it was resampled twice.
        assert np.percentile(change, 99) <= 2


def test_outside_of_the_square_no_pixel_changes():
    image, crop = _smooth(220, 300), Crop(150.0, 110.0, 100.0)
    out = align.Paster(image, crop, 64)(np.full((64, 64, 3), 255, np.uint8))
    outside = np.ones((220, 300), bool)
    outside[60:160, 100:200] = False
    assert (out[outside] == image[outside]).all()
    assert out[110, 150].min() > 250
    assert (image == _smooth(220, 300)).all()


def test_no_step_shows_at_the_square_s_border():
    image = np.full((200, 200, 3), 100, np.uint8)
    out = align.Paster(image, Crop(100.0, 100.0, 120.0), 64)(np.full((64, 64, 3), 160, np.uint8))
    row = out[100, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() <= 12  # 60 levels spread over the fade


def test_untouched_background_keeps_the_picture_s_own_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(100, 104, (300, 300, 3), dtype=np.uint8)  # detail that 64 px can't hold
    crop = Crop(150.0, 150.0, 240.0)
    points = np.stack([np.full(478, 150.0), np.linspace(130, 170, 478)], -1)
    points[:10, 0] = np.linspace(135, 165, 10)
    paster = align.Paster(image, crop, 64, landmarks=points)
    out = paster(align.extract(image, crop, 64))
    assert (out[60:80, 60:80] == image[60:80, 60:80]).all()
