"""Image measures against values that follow from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vasa_jax.metrics import image


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    base = gaussian_filter(rng.normal(size=(96, 96, 3)), (1, 1, 0)) * 120 + 128
    return np.clip(base, 0, 255).astype(np.uint8)


def test_psnr_of_a_known_error(picture):
    off = picture.astype(float) + 5.0
    assert image.psnr(picture, off) == pytest.approx(20 * np.log10(255 / 5))
    assert image.psnr(picture, picture) == np.inf


def test_ssim_of_equal_and_of_constant_pictures(picture):
    assert image.ssim(picture, picture) == pytest.approx(1.0)
    # Two flat pictures leave only the luminance term, known in closed form.
    a, b = np.full((64, 64, 3), 100.0), np.full((64, 64, 3), 150.0)
    c1 = (0.01 * 255) ** 2
    want = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert image.ssim(a, b) == pytest.approx(want, rel=1e-6)


def test_ssim_falls_with_noise(picture):
    rng = np.random.default_rng(1)
    noisy = [image.ssim(picture, picture + rng.normal(0, s, picture.shape)) for s in (5, 20, 60)]
    assert 1 > noisy[0] > noisy[1] > noisy[2]


def test_sharpness_ignores_light_and_contrast_and_sees_blur(picture):
    sharp = image.sharpness(picture)
    assert image.sharpness(picture * 0.4 + 60) == pytest.approx(sharp, rel=1e-6)
    assert image.sharpness(gaussian_filter(picture.astype(float), (1.5, 1.5, 0))) < 0.6 * sharp


def test_flicker_of_an_alternation_and_of_steady_change():
    keep = np.ones((8, 8), bool)
    still = np.full((8, 8, 3), 100.0)
    blink = [still + 3.0 * (-1) ** t for t in range(10)]
    assert image.flicker(blink, keep) == pytest.approx(6.0)
    assert image.flicker([still + 2.0 * t for t in range(10)], keep) == pytest.approx(0, abs=1e-9)
    assert np.isnan(image.flicker([still, still], keep))


def test_outside_head_leaves_out_face_and_shoulders():
    lm = np.zeros((478, 3))
    lm[0], lm[1:] = (40, 40, 0), (60, 60, 0)
    mask = image.outside_head(lm, 100, 100)
    assert not mask[50, 50] and not mask[90, 5]
    assert mask[5, 5] and mask[50, 95]
