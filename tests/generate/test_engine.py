"""What an engine opens, and what of a release it refuses in one line."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.face.tiny_volumetric import TINY
from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import SpaceConfig
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.face.volume.face import origin_of
from vasa_jax.generate.engine import Engine

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return load_release(tiny_release(tmp_path_factory.mktemp("full") / "tiny", kind="volume"))


def test_a_face_of_no_known_kind_is_refused(full):
    other = dataclasses.replace(full, config={**full.config, "face": {"kind": "mesh"}})
    with pytest.raises(UserError, match="kind 'mesh'; there are warp, volume"):
        Engine(other)


def test_a_motion_model_of_another_space_is_refused(full, tmp_path):
    origin = origin_of(full.params["face"])
    arkit = load_release(tiny_release(tmp_path / "arkit", kind="volume", space=SpaceConfig()))
    with pytest.raises(UserError, match="motion model is in the motion space arkit") as caught:
        Engine(arkit)
    assert origin[:12] in str(caught.value) and "\n" not in str(caught.value)


def test_a_full_face_prepares_and_draws_as_the_lite_one_does(full):
    engine = Engine(full)
    assert engine.size == TINY.size and engine.face.space is engine.motion_config.motion_space
    assert engine.stats.space.dim == 7 + TINY.dynamics and engine.defaults.sampler == "ddim"
    image = drawn_face(300)
    (found,) = FaceFinder().find(image)
    crop = align.crop_from_landmarks(found.landmarks)
    square = align.extract(image, crop, engine.size)
    fit, appearance = engine.prepare(square, align.to_crop(found.landmarks, crop))
    assert fit.motion.shape == (54,)
    drawn = engine.draw(appearance, engine.rest(appearance)[None])
    assert drawn.shape == (1, TINY.size, TINY.size, 3) and drawn.dtype == np.uint8
    # The corners are far from the head: the picture's own.
    assert np.abs(drawn[0, :4, :4].astype(int) - square[:4, :4]).max() <= 1
