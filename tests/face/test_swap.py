"""Swaps of what was read in pictures: own parts change nothing, sizes carry over."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import FACE, tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM
from vasa_jax.core.types import POSE
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.head.head import head_from_arrays
from vasa_jax.face.swap import ENDS, Reenactor, reenactor_of
from vasa_jax.face.warp.autoencoder import FaceAutoencoder

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def reenactor(tmp_path_factory):
    release = load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))
    model = FaceAutoencoder(FACE, head_from_arrays(release.params["head"]))
    return Reenactor(model, release.params["face"])


@pytest.fixture(scope="module")
def square():
    image = drawn_face(300)
    (face,) = FaceFinder().find(image)
    crop = align.crop_from_landmarks(face.landmarks)
    return align.extract(image, crop, FACE.size), align.to_crop(face.landmarks, crop) * FACE.size


@pytest.fixture(scope="module")
def fit(reenactor, square):
    return reenactor.fit(square[1])


@pytest.mark.usefixtures("quickly_compiled")
def test_a_full_face_is_given_the_code_of_whom_it_is_like(tmp_path, square):
    """The pose of one and the dynamics of another; the portrait's own give its own picture."""
    release = load_release(tiny_release(tmp_path / "tiny", kind="volume"))
    head = head_from_arrays(release.params["head"])
    made = reenactor_of(release.config["face"], release.params["face"], head)
    picture = align.extract(drawn_face(300), align.Crop(150, 150, 300), made.size)
    own = made.read(square[1] * (made.size / FACE.size), picture)
    source = made.source(picture, own)
    rest = made.face.rest(source.appearance)
    np.testing.assert_allclose(own.code, rest[POSE.stop :], atol=1e-4)
    motion, placement, code = made.swap(own, own, own)
    image = made.render(source, motion, placement, code)
    render = jax.jit(made.face.render)
    directly = render(made.params, made.head, source.appearance, rest[None]).image[0]
    np.testing.assert_allclose(image / 127.5 - 1, directly, atol=0.02)
    other = own._replace(code=own.code + 1.0)
    np.testing.assert_array_equal(made.swap(own, own, other)[2], other.code)


def random_fit(seed: int) -> FaceFit:
    rng = np.random.default_rng(seed)
    motion = np.zeros(MOTION_DIM, np.float32)
    motion[:3] = rng.normal(0, 0.2, 3)
    motion[GAZE] = rng.normal(0, 0.2, 2)
    motion[EXPRESSION] = rng.uniform(0, 0.3, 45)
    placement = np.array([0.05, -0.03, 0.07], np.float32)
    return FaceFit(rng.normal(0, 0.5, 3).astype(np.float32), motion, placement, np.float32(0))


def test_a_fit_is_read_back_from_its_landmarks(reenactor, square, fit):
    found = reenactor.landmarks(fit)
    gap = np.linalg.norm(found[:, :2] - square[1][:, :2], axis=1)
    assert gap.mean() < 0.02 * FACE.size


def test_own_pose_and_dynamics_are_the_face_itself(reenactor, fit):
    motion, placement = reenactor.swap(fit, fit, fit)
    np.testing.assert_array_equal(motion, fit.motion)
    np.testing.assert_allclose(placement, fit.placement, rtol=1e-5, atol=1e-6)


def test_a_swap_takes_pose_and_dynamics_apart(reenactor, fit):
    a, b = random_fit(1), random_fit(2)
    motion, _ = reenactor.swap(fit, a, b)
    np.testing.assert_array_equal(motion[POSE], a.motion[POSE])
    np.testing.assert_array_equal(motion[GAZE], b.motion[GAZE])
    np.testing.assert_array_equal(motion[EXPRESSION], b.motion[EXPRESSION])


def test_the_level_face_is_as_large_and_where_the_drivers_is(reenactor, fit):
    driver = random_fit(3)
    _, placement = reenactor.swap(fit, driver, driver)
    level = np.zeros(MOTION_DIM, np.float32)
    ours = reenactor.landmarks(fit._replace(motion=level, placement=placement))[list(ENDS), 1]
    theirs = reenactor.landmarks(driver._replace(motion=level))[list(ENDS), 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_dynamics_code_knows_neither_pose_nor_place(reenactor):
    motion = np.stack([random_fit(4).motion, random_fit(4).motion, random_fit(5).motion])
    motion[1, POSE] += 0.3
    code = reenactor.dynamics_code(motion)
    np.testing.assert_array_equal(code[0], code[1])
    assert np.abs(code[0] - code[2]).max() > 1e-4


@pytest.mark.slow
def test_rendering_agrees_with_the_autoencoder(reenactor, square, fit):
    """Its own pose, absolute, is the resting motion that ``generate`` would ask for."""
    neutral = fit._replace(motion=fit.motion.copy())
    neutral.motion[EXPRESSION] = 0  # nothing is kept from the portrait, so both mean the same
    encoded = reenactor.source(square[0], neutral)
    motion = np.zeros((1, MOTION_DIM), np.float32)
    motion[0, GAZE] = fit.motion[GAZE]
    want = reenactor.model.render_uint8(reenactor.params, encoded.appearance, motion)[0]
    got = reenactor.render(encoded, neutral.motion, neutral.placement)
    assert np.abs(got.astype(int) - want).max() <= 1
