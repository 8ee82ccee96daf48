"""Portraits of one colour, and what is painted into them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.warp.irises import LUMA
from vasa_jax.face.warp.tone import Tone, tone_of, toned

pytestmark = pytest.mark.usefixtures("broadcasting")


def picture(hue_of_light, *, spread: float = 0.0) -> np.ndarray:
    """Noise whose colour follows from its light, plus as much hue of its own."""
    rng = np.random.default_rng(0)
    light = rng.uniform(-0.8, 0.8, (64, 64))
    hue = np.stack(hue_of_light(light), -1)
    hue = hue + rng.normal(0, spread, hue.shape)
    hue = hue - (hue @ np.array(LUMA))[..., None]
    return (light[..., None] + hue).astype(np.float32)


def sepia(light):
    return 0.15 + 0.05 * light - 0.1 * light**2, 0.0 * light, -0.2 + 0.1 * light**2


EVERYWHERE = jnp.ones((64, 64))


def test_grey_stays_grey():
    tone = tone_of(jnp.array(picture(lambda light: (0 * light,) * 3)), EVERYWHERE)
    assert float(tone.free) == 0.0
    red = toned(jnp.array([0.4, -0.5, -0.6]), tone)
    light = 0.299 * 0.4 - 0.587 * 0.5 - 0.114 * 0.6
    np.testing.assert_allclose(red, [light] * 3, atol=1e-3)


def test_brown_is_found_and_kept():
    image = picture(sepia)
    tone = tone_of(jnp.array(image), EVERYWHERE)
    assert float(tone.free) == 0.0
    np.testing.assert_allclose(toned(jnp.array(image), tone), image, atol=5e-3)


def test_a_picture_with_all_colours_changes_nothing():
    tone = tone_of(jnp.array(picture(sepia, spread=0.15)), EVERYWHERE)
    assert float(tone.free) == 1.0
    colour = jnp.array([0.4, -0.5, -0.6])
    np.testing.assert_allclose(toned(colour, tone), colour, atol=1e-6)


def test_in_between_is_in_between_and_no_face_is_no_error():
    half = Tone(jnp.zeros((3, 3)), jnp.float32(0.5))
    got = toned(jnp.array([0.3, 0.0, -0.3]), half)
    light = 0.299 * 0.3 - 0.114 * 0.3
    np.testing.assert_allclose(got, [(light + v) / 2 for v in (0.3, 0.0, -0.3)], atol=1e-6)
    assert np.isfinite(tone_of(jnp.zeros((64, 64, 3)), jnp.zeros((64, 64))).curve).all()
