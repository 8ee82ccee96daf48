"""The inside of a mouth: where it is painted, in which colours, and the same at any size."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.face.head import head as heads
from vasa_jax.face.warp import mouth as mouths
from vasa_jax.face.warp.geometry import NUM_MAPS, Maps, drive_geometry, place_source
from vasa_jax.face.warp.mouth import Mouth
from vasa_jax.face.warp.teeth import teeth_of
from vasa_jax.face.warp.tone import Tone

pytestmark = pytest.mark.usefixtures("broadcasting")
PLACEMENT = jnp.array([0.0, 0.05, 0.071])
ALL_COLOURS = Tone(jnp.zeros((3, 3)), jnp.float32(1.0))
GREY = Tone(jnp.zeros((3, 3)), jnp.float32(0.0))


@pytest.fixture(scope="module")
def head():
    return heads.head_from_arrays(load_release("lite").params["head"])


@functools.cache
def driven(size: int, **weights: float):
    """Maps and pose, with a leading axis, of the mean head with that expression."""
    head = heads.head_from_arrays(load_release("lite").params["head"])
    motion = np.zeros(MOTION_DIM, np.float32)
    for name, value in weights.items():
        motion[MOTION_INDEX[name]] = value

    @jax.jit
    def run(head, motion):
        own = jnp.zeros(MOTION_DIM)
        source = place_source(
            head, jnp.zeros(head.identity.shape[0]), own, PLACEMENT, size=size
        )  # fmt: skip
        pose = heads.drive(own, PLACEMENT, motion)
        return drive_geometry(head, source, pose, size=size).maps, pose

    return jax.tree.map(lambda m: m[None], run(head, motion))


def painted(head, size: int, *, white=(0.6, 0.5, 0.4), flesh=(0.2, -0.3, -0.2),
            before=(-1.0, -1.0, 1.0), **weights):  # fmt: skip
    """A picture of one colour (blue) with the mouth of the mean head, and its maps."""
    maps, pose = driven(size, **weights)
    mouth = Mouth(teeth_of(head, jnp.asarray(head.base)), jnp.array(white), jnp.array(flesh))
    blue = jnp.broadcast_to(jnp.array(before), (size, size, 3))
    opening = mouths.opening_of(maps, pose)
    first = jax.tree.map(lambda m: m[0], (opening, pose))
    return np.asarray(jax.jit(mouths.paint)(blue, mouth, *first)), maps, opening


SMILE = dict(jawOpen=0.25, mouthSmile_L=0.5, mouthSmile_R=0.5, mouthUpperUp_L=0.4,
             mouthUpperUp_R=0.4)  # fmt: skip


def test_only_the_mouth_is_painted_and_all_of_it(head):
    image, maps, _ = painted(head, 256, **SMILE)
    inside = np.asarray(maps.mouth_interior[0]) > 0
    assert inside.sum() > 150
    blue = np.abs(image - [-1, -1, 1]).max(-1) < 1e-5
    y, x = np.nonzero(inside)
    box = np.zeros_like(inside)
    box[y.min() - 1 : y.max() + 2, x.min() - 1 : x.max() + 2] = True
    assert blue[~box].all()
    core = inside.copy()
    core[1:-1, 1:-1] &= inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    assert image[core][:, 2].max() < 0.5  # nothing of the blue is left
    assert image.min() >= -1.0 and image.max() <= 1.0


def test_shut_lips_show_a_dark_line_at_most(head):
    image, maps, _ = painted(head, 256, before=(0.0, 0.0, 0.0))
    changed = np.abs(image).max(-1) > 1e-5
    assert changed.sum() < 150  # the mean head's lips do not quite touch
    core = np.asarray(maps.mouth_interior[0]) > 0
    assert image[core].mean() < -0.1 and image.max() < 0.02


def test_a_smile_shows_teeth_and_a_dropped_jaw_a_dark_throat(head):
    def light(**weights):
        image, maps, _ = painted(head, 256, **weights)
        inside = np.asarray(maps.mouth_interior[0]) > 0
        return image[inside].mean(-1)

    smile, wide = light(**SMILE), light(jawOpen=0.7)
    assert np.percentile(smile, 90) > 0.1  # white is 0.5 in front light, less in the lips' shadow
    assert np.median(wide) < -0.4
    assert np.median(smile) > np.median(wide) + 0.2


def test_a_picture_twice_as_large_shows_the_same(head):
    small, *_, opening = painted(head, 256, **SMILE)
    maps, pose = driven(256, **SMILE)
    mouth = Mouth(
        teeth_of(head, jnp.asarray(head.base)), jnp.array([0.6, 0.5, 0.4]),
        jnp.array([0.2, -0.3, -0.2]),
    )  # fmt: skip
    blue = jnp.broadcast_to(jnp.array([-1.0, -1.0, 1.0]), (512, 512, 3))
    given = jax.tree.map(lambda m: m[0], (mouths.enlarged(opening), pose))
    large = np.asarray(jax.jit(mouths.paint)(blue, mouth, *given))
    halved = large.reshape(256, 2, 256, 2, 3).mean((1, 3))
    inside = np.asarray(maps.mouth_interior[0]) > 0
    assert np.abs(halved - small)[inside].mean() < 0.05
    assert np.abs(halved - small)[~inside].mean() < 0.001


def portrait(*, skin=(0.6, 0.45, 0.35), eyes=(0.7, 0.7, 0.72), eye_px: int = 12):
    """A face of one colour with eyeballs of another, in [-1, 1], and its maps."""
    y, x = np.mgrid[:256, :256] - 128
    face, eye = np.hypot(x, y) < 90, np.hypot(x - 30, y + 20) < eye_px
    none = np.zeros((256, 256), np.float32)
    maps = Maps(*[none] * NUM_MAPS)._replace(
        face=np.float32(face & ~eye), visible=np.float32(face), eyeball=np.float32(eye)
    )
    image = np.where(eye[..., None], eyes, np.where(face[..., None], skin, 0.1))
    return jnp.asarray(2 * image - 1, jnp.float32), jax.tree.map(jnp.asarray, maps)


def colours(head, tone=ALL_COLOURS, **given):
    image, maps = portrait(**given)
    made = mouths.mouth_of(image, maps, teeth_of(head, jnp.asarray(head.base)), tone)
    return (np.asarray(c + 1) / 2 for c in (made.white, made.flesh))


def test_teeth_are_as_white_as_the_eyes_and_flesh_is_redder_than_skin(head):
    white, flesh = colours(head)
    assert 0.6 < white.mean() < 0.8 and np.ptp(white) < 0.15
    assert flesh[0] / flesh[1] > 0.6 / 0.45
    bluish, _ = colours(head, eyes=(0.5, 0.6, 0.8))
    assert bluish[2] / bluish[0] > white[2] / white[0]  # the light of the picture
    bright, _ = colours(head, skin=(0.95, 0.9, 0.88), eyes=(0.4, 0.4, 0.4))
    assert 0.7 < bright.mean() and bright.max() <= 0.9 + 1e-6  # never far darker than the skin


def test_without_eyes_the_skins_light_is_white(head):
    white, _ = colours(head, eye_px=1)
    assert np.isfinite(white).all()
    assert 0.4 < white.mean() < 0.7 and np.ptp(white) < np.ptp([0.6, 0.45, 0.35])


def test_in_a_grey_portrait_all_is_grey(head):
    for colour in colours(head, tone=GREY):
        np.testing.assert_allclose(colour, colour[0], atol=1e-6)
