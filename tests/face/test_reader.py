"""The encoder's input: pose, place and size of a face are undone, and rest is exactly neutral."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.head import head as heads
from vasa_jax.face.head import reader as encoder
from vasa_jax.face.head.fit import landmark_head
from vasa_jax.synth.speech import visemes

SEEN = len(encoder.SEEN)
PLACEMENT = np.array([0.02, 0.06, 1 / 14.0], np.float32)


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def head():
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


@pytest.fixture(scope="module")
def scene(head):
    lm = landmark_head(head)
    return jax.tree.map(jnp.asarray, lm), encoder.anchors(lm, head.landmark_trust)


def view(lm, identity, angle=(0.0, 0.0, 0.0), placement=PLACEMENT, expression=None):
    """Exact landmarks (478, 2) in [-1, 1], eyes straight ahead in the head."""
    own, centers = heads.person(lm, jnp.asarray(identity))
    expression = jnp.zeros(45) if expression is None else jnp.asarray(expression)
    v = heads.deform(lm, own, centers, expression, jnp.zeros(2))
    rot = heads.rotation(*jnp.asarray(angle, jnp.float32))
    return heads.place(v, rot, jnp.asarray(placement, jnp.float32))[:, :2]


def someone(lm, seed=0):
    rng = np.random.default_rng(seed)
    return 0.5 * rng.normal(size=lm.identity.shape[0]).astype(np.float32)


def displacement(scene, identity, **frame):
    """Seen landmarks' way from rest, (2 SEEN,) in cm, for an exactly known person."""
    lm, anchor = scene
    own, _ = heads.person(lm, jnp.asarray(identity))
    rest = encoder.rest_face(own, view(lm, identity), anchor)
    features, pose, _ = jax.jit(encoder.observe)(rest, lm.base, view(lm, identity, **frame), anchor)
    return 0.25 * np.asarray(features[: 2 * SEEN]), np.asarray(pose)


@pytest.mark.parametrize("angle", [(0.3, 0.0, 0.0), (0.0, -0.2, 0.0), (0.25, 0.15, -0.3)])
def test_angles_invert_rotation(angle):
    rot = heads.rotation(*jnp.asarray(angle))
    np.testing.assert_allclose(encoder.angles(rot), angle, atol=1e-6)


def test_alignment_finds_the_pose_of_a_rigid_face(scene):
    lm, anchor = scene
    who, angle, placement = someone(lm), (0.35, -0.2, 0.15), (-0.1, 0.2, 0.1)
    own, _ = heads.person(lm, jnp.asarray(who))
    rot, found = encoder.align_head(own, view(lm, who, angle, placement), anchor)
    np.testing.assert_allclose(encoder.angles(rot), angle, atol=1e-4)
    np.testing.assert_allclose(found, placement, atol=1e-4)


def test_a_resting_face_is_neutral_in_any_pose_and_place(scene):
    where = {"angle": (0.3, -0.15, 0.2), "placement": (0.2, -0.1, 0.05)}
    moved, pose = displacement(scene, someone(scene[0]), **where)
    assert np.median(np.abs(moved)) < 1e-4  # cm
    assert np.abs(moved).max() < 0.02  # irises: eyeballs lie a little deeper than the guess
    np.testing.assert_allclose(pose, where["angle"], atol=1e-3)


def test_an_expression_looks_the_same_wherever_and_however_large_the_face_is(scene):
    who, smile = someone(scene[0], 1), visemes.weights(mouthSmile=0.6, jawOpen=0.3)
    here, _ = displacement(scene, who, expression=smile)
    there, _ = displacement(scene, who, expression=smile, placement=(0.2, -0.1, 0.11))
    assert np.abs(here).max() > 0.5
    np.testing.assert_allclose(here, there, atol=1e-3)
    # An expression moves the found pose a little, and that depends on where the camera's axis is.
    rolled, _ = displacement(scene, who, expression=smile, angle=(0.0, 0.0, 0.3))
    assert np.abs(here - rolled).mean() < 0.15 * np.abs(here).mean()


def test_a_rest_face_comes_from_frames_with_lips_met_and_eyes_open(scene):
    lm, who = scene[0], someone(scene[0], 2)
    expressions = [visemes.weights(jawOpen=0.3)] * 20 + [visemes.weights(eyeBlink=1.0)] * 20
    expressions += [visemes.weights()] * 20
    frames = [
        view(lm, who, expression=e, placement=PLACEMENT + np.array([0.002 * i, 0, 0]))
        for i, e in enumerate(expressions)
    ]
    found = encoder.typical_rest(np.stack(frames) / 2 + 0.5)
    wanted = np.asarray(view(lm, who)) / 2 + 0.5
    found, wanted = (x - x.mean(0) for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
