"""The full face as a ``FaceModel``: motions relative to a portrait, and what is behind the head."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.face.tiny_volumetric import TINY, filled
from tests.generate.tiny_release import tiny_head
from vasa_jax.core.errors import UserError
from vasa_jax.face.faces import build_face, space_of_face
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.pose import drive_pose, pose_vector, relative_pose
from vasa_jax.face.model import from_uint8
from vasa_jax.face.volume.face import VolumetricFace, origin_of
from vasa_jax.generate.drawer import Drawer

pytestmark = pytest.mark.usefixtures("broadcasting")
TEN = np.float32(np.radians(10))


@functools.cache
def drawer():
    head = tiny_head()
    face = VolumetricFace(TINY, head)
    return Drawer(face, filled(jax.eval_shape(face.init, jax.random.key(0))), head)


@functools.cache
def portrait():
    """A square, its fit and its appearance."""
    image = drawn_face(300)
    (found,) = FaceFinder().find(image)
    crop = align.crop_from_landmarks(found.landmarks)
    square = align.extract(image, crop, TINY.size)
    return square, *drawer().prepare(square, align.to_crop(found.landmarks, crop))


def driven(motion):
    """The absolute pose that a driving motion leads to."""
    return np.asarray(drive_pose(portrait()[2].pose, jnp.asarray(motion)[:7]))


def test_rest_is_the_portraits_own_absolute_pose_and_dynamics():
    _, fit, appearance = portrait()
    rest = drawer().rest(appearance)
    assert rest.shape == (7 + TINY.dynamics,)
    np.testing.assert_array_equal(driven(rest), pose_vector(fit.motion, fit.placement))
    np.testing.assert_array_equal(rest[7:], appearance.z_dyn)
    turned = rest.copy()
    turned[0] = TEN
    assert driven(turned)[0] == pytest.approx(fit.motion[0] + TEN, abs=1e-6)
    np.testing.assert_array_equal(driven(turned)[1:], driven(rest)[1:])


def test_a_pose_is_driven_as_the_lite_face_drives_it():
    rng = np.random.default_rng(0)
    own, placement = np.zeros(54, np.float32), jnp.array([0.05, -0.1, 0.08])
    own[:3] = 0.3, -0.1, 0.2
    motion = np.zeros(54, np.float32)
    motion[:7] = rng.normal(0, 0.2, 7)
    motion[5] = 0.0
    pose = heads.drive(own, placement, motion)
    whole = np.zeros(54, np.float32)
    whole[:3] = own[:3] + motion[:3]
    made = drive_pose(pose_vector(own, placement), motion[:7])
    np.testing.assert_allclose(made, pose_vector(whole, pose.placement), atol=1e-6)
    back = relative_pose(pose_vector(own, placement), made)
    np.testing.assert_allclose(back, motion[:7], atol=1e-6)


def test_the_portraits_own_picture_drives_it_to_rest():
    square, fit, appearance = portrait()
    one = drawer()
    many = jax.tree.map(lambda a: np.asarray(a)[None], fit)
    image = from_uint8(square)[None]
    motion = jax.jit(one.face.encode_motion)(one.face_params, one.face.head, image, many, fit)
    np.testing.assert_array_equal(motion[0, :7], np.zeros(7))
    np.testing.assert_allclose(motion[0], one.rest(appearance), atol=1e-5)


def test_outside_of_the_matte_is_the_portraits_background():
    square, _, appearance = portrait()
    one, image = drawer(), from_uint8(square)
    motion = np.stack([one.rest(appearance)] * 3)
    motion[1, 0], motion[2, 3] = TEN, 0.3
    made = jax.jit(one.face.render)(one.face_params, one.face.head, appearance, motion)
    assert made.image.shape == (3, TINY.size, TINY.size, 3) and made.origin is None
    background = np.asarray(appearance.background)
    for picture, matte in zip(np.asarray(made.image), np.asarray(made.matte), strict=True):
        assert 0.1 < (matte == 0).mean() < 0.9 and matte.max() == 1.0
        assert ((matte > 0) & (matte < 1)).any()  # a soft edge
        np.testing.assert_array_equal(picture[matte == 0], background[matte == 0])
    # The head's old place is painted, all else is the picture itself.
    kept = (background == image).all(-1)
    assert kept[np.asarray(made.matte[0]) == 0].mean() > 0.6
    assert not kept[np.asarray(made.matte[0]) == 1].any()
    right = [np.average(np.arange(TINY.size), weights=m.sum(0)) for m in np.asarray(made.matte)]
    assert right[2] - right[0] > 0.1 * TINY.size  # 0.3 head widths to the right


def test_the_decoders_own_matte_is_used_where_it_has_one():
    cfg = dataclasses.replace(TINY, matte=True)
    face = VolumetricFace(cfg, tiny_head())
    params = filled(jax.eval_shape(face.init, jax.random.key(0)))
    params = {**params, "decoder": {**params["decoder"], "matte": jax.tree.map(
        jnp.zeros_like, params["decoder"]["matte"])}}  # fmt: skip
    appearance = portrait()[2]
    motion = drawer().rest(appearance)[None]
    made = jax.jit(face.render)(params, face.head, appearance, motion)
    np.testing.assert_array_equal(made.matte, np.full((1, TINY.size, TINY.size), 0.5, np.float32))


def test_one_compilation_for_each_function_and_one_row_is_as_many():
    _, _, appearance = portrait()
    one, rest = drawer(), drawer().rest(portrait()[2])
    moved = rest.copy()
    moved[:7] += 0.05
    one.render.clear()
    first = one.draw(appearance, np.stack([rest, moved]))
    again = one.draw(appearance, np.stack([moved, rest]))
    assert one.render.count == 1
    assert one.render.count == 1
    assert first.dtype == np.uint8 and (first[0] != first[1]).any()
    np.testing.assert_array_equal(first, again[::-1])
    alone = one.draw(appearance, moved[None])  # as live draws it
    assert one.render.count == 2
    assert np.abs(alone[0].astype(int) - first[1]).max() <= 1


def test_without_an_origin_there_is_no_finer_picture():
    _, _, appearance = portrait()
    one = drawer()
    motion = one.rest(appearance)[None]
    square, fine = one.draw_fine(appearance, np.zeros((8, 8, 3), np.float32), motion)
    assert fine is square
    np.testing.assert_array_equal(square, one.draw(appearance, motion))


def test_the_origin_names_the_encoder_of_dynamics_alone():
    params = {"dynamics": {"b": np.full(2, 0.1, np.float32), "a": {"c": np.ones((1, 3))}},
              "decoder": {"x": np.ones(1)}}  # fmt: skip
    origin = origin_of(params)
    assert len(origin) == 64
    # The same in another order, in half precision, and with another decoder.
    dynamics = {"a": params["dynamics"]["a"], "b": params["dynamics"]["b"].astype(np.float16)}
    assert origin_of({"dynamics": dynamics}) == origin
    other = {"a": {"c": np.ones((1, 3))}, "b": np.full(2, 0.2, np.float32)}
    assert origin_of({"dynamics": other}) != origin
    assert origin_of({"dynamics": {**dynamics, "a": {"c": np.ones((3, 1))}}}) != origin


def test_a_picture_of_another_size_is_refused():
    square, fit, _ = portrait()
    one = drawer()
    with pytest.raises(UserError, match="128 x 128"):
        one.face.encode_appearance(one.face_params, one.face.head, from_uint8(square)[:64], fit)


def test_a_face_is_built_from_the_table_of_a_release():
    from vasa_jax.core.config import to_json

    head, params = tiny_head(), drawer().face_params
    table = {"kind": "volume", "model": to_json(TINY), "loss": {"foreground_margin": 0.1}}
    space = space_of_face(table, params)
    assert space.cfg.origin == origin_of(params) and space.dim == 7 + TINY.dynamics
    face = build_face(table, head, space=space)
    assert (face.kind, face.space, face.size) == ("volume", space, 128)
    assert face.fixed == (TINY, 0.1)
    assert build_face({}, head).kind == "warp"
    with pytest.raises(UserError, match="kind 'mesh'; there are warp, volume"):
        build_face({"kind": "mesh"}, head)
    with pytest.raises(UserError, match="motion space latent"):
        build_face({}, head, space=space)
