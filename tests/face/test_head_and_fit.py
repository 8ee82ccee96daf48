"""Signs of the motion vector on a real head, and the fit recovering what was projected."""

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.types import POSE
from vasa_jax.face.head import fit
from vasa_jax.face.head import head as heads

pytestmark = pytest.mark.usefixtures("broadcasting")

NOSE_TIP, CHIN, FOREHEAD = 1, 152, 10


@pytest.fixture(scope="module")
def head():
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


PLACEMENT = np.array([0.02, 0.06, 1 / 14.0], np.float32)


def project(head, motion, identity=None, placement=PLACEMENT):
    """Landmarks (478, 3) of an absolute motion, X and Y in [-1, 1]."""
    identity = np.zeros(head.identity.shape[0], np.float32) if identity is None else identity
    neutral, centers = heads.person(head, jnp.asarray(identity))
    pose = heads.absolute_pose(jnp.asarray(motion), jnp.asarray(placement))
    eye = heads.eye_in_head(pose.rotation, pose.gaze)
    v = heads.deform(head, neutral, centers, pose.expression, eye)
    return np.asarray(heads.landmarks(head, heads.place(v, pose.rotation, pose.placement)))


def motion(**values):
    m = np.zeros(54, np.float32)
    for name, value in values.items():
        m[MOTION_INDEX[name]] = value
    return m


def test_signs_are_those_the_viewer_sees(head):
    rest = project(head, motion())
    nose = lambda **v: (project(head, motion(**v)) - rest)[NOSE_TIP]  # noqa: E731
    assert nose(yaw=0.2)[0] > 0.05  # towards the right edge
    assert nose(pitch=0.2)[1] < -0.05  # up is smaller Y
    rolled = project(head, motion(roll=0.2))
    axis = rolled[FOREHEAD, :2] - rolled[CHIN, :2]
    assert axis[0] > 0.05  # clockwise: the forehead leans to the right
    assert nose(tx=0.1)[0] > 0 and nose(ty=0.1)[1] < 0
    gaze = project(head, motion(gaze_yaw=0.3)) - rest
    assert gaze[468, 0] > 0.005 and gaze[473, 0] > 0.005


def test_log_scale_is_apparent_size(head):
    near, rest = project(head, motion(log_scale=np.log(1.25))), project(head, motion())
    ratio = np.ptp(near[:468, 1]) / np.ptp(rest[:468, 1])
    np.testing.assert_allclose(ratio, 1.25, rtol=1e-3)


def test_motion_between_placements_leads_from_one_to_the_other():
    rng = np.random.default_rng(0)
    own = np.array([0.1, -0.2, 0.08], np.float32)
    moved = own * rng.uniform(0.7, 1.4, (5, 3)).astype(np.float32)
    motion = np.zeros((5, MOTION_DIM), np.float32)
    motion[:, POSE] = heads.motion_between(own, moved)
    np.testing.assert_array_equal(motion[:, [0, 1, 2, 5]], 0.0)
    back = [heads.move_placement(jnp.asarray(own), jnp.asarray(row)) for row in motion]
    np.testing.assert_allclose(back, moved, rtol=1e-5)


def test_rotations_are_rotations():
    r = np.asarray(heads.rotation(jnp.array(0.4), jnp.array(-0.2), jnp.array(0.3)))
    np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(r), 1.0, atol=1e-6)


def test_gaze_in_the_camera_frame_survives_a_turned_head():
    rot = heads.rotation(jnp.array(0.3), jnp.array(0.1), jnp.array(0.05))
    gaze = jnp.array([0.2, -0.1])
    back = fit.camera_gaze(rot, heads.eye_in_head(rot, gaze))
    np.testing.assert_allclose(back, gaze, atol=1e-5)


def test_the_similarity_of_a_frontal_face_in_closed_form():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3)).astype(np.float32) * 5
    roll, shift, scale = 0.3, np.array([0.1, -0.2]), 0.07
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    target = scale * (points[:, :2] * [1, -1]) @ turn.T + shift
    target[0] += 9.0  # counts for nothing
    weight = rng.uniform(0.5, 1.5, 20)
    weight[0] = 0.0
    found = fit.frontal_similarity(*(jnp.asarray(x, jnp.float32) for x in (points, target, weight)))
    np.testing.assert_allclose(found, [roll, *shift, scale], atol=1e-5)


def test_fit_recovers_pose_and_mouth_of_a_projected_head(head):
    rng = np.random.default_rng(0)
    truth = motion(
        yaw=0.25, pitch=-0.1, roll=0.08, jawOpen=0.4, eyeBlink_L=0.5, eyeBlink_R=0.5,
        mouthSmile_L=0.4, mouthSmile_R=0.4,
    )  # fmt: skip
    identity = rng.normal(size=head.identity.shape[0]).astype(np.float32) * 0.4
    seen = project(head, truth, identity)
    found = fit.fit_portrait(head, (seen[:, :2] + 1) / 2)
    assert found.error < 0.006
    # Identity and yaw share a little evidence in one picture; degrees, not thousandths.
    np.testing.assert_allclose(found.motion[:3], truth[:3], atol=np.radians(5))
    assert abs(found.motion[MOTION_INDEX["jawOpen"]] - 0.4) < 0.15
    assert abs(found.motion[MOTION_INDEX["eyeBlink_L"]] - 0.5) < 0.25


def test_half_a_blink_halves_the_gap_and_a_whole_one_shuts_anybodys_eyes(head):
    rng = np.random.default_rng(0)
    upper, lower = np.moveaxis(np.asarray(head.lids), -1, 0)
    shut = np.asarray(head.lids_shut)
    for raised in (0.0, 0.5):
        neutral, centers = heads.person(head, jnp.asarray(rng.normal(size=50).astype(np.float32)))
        looking_up = jnp.array([0.0, 0.3 if raised else 0.0])

        def gap(blink, neutral=neutral, centers=centers, raised=raised, eye=looking_up):
            both = motion(eyeBlink_L=blink, eyeBlink_R=blink, eyeWide_L=raised, eyeWide_R=raised)[
                EXPRESSION
            ]
            y = np.asarray(heads.deform(head, neutral, centers, both, eye))[:, 1]
            return y[upper] - y[lower] - shut

        assert gap(0.0).min() > 0.4
        np.testing.assert_allclose(gap(0.5), 0.5 * gap(0.0), atol=1e-4)
        np.testing.assert_allclose(gap(1.0), 0.0, atol=1e-4)


def test_what_the_head_model_does_not_know_of_a_face_becomes_its_shape(head):
    """Lids that lie a little higher than any identity would have them, seen from the side."""
    placement = jnp.asarray(PLACEMENT)
    lids = np.unique(np.asarray(fit.LIDS))
    neutral, centers = heads.person(head, jnp.zeros(head.identity.shape[0]))
    pose = heads.absolute_pose(jnp.asarray(motion(yaw=0.2)), placement)
    higher = np.zeros((468, 3), np.float32)
    higher[lids, 1] = 0.1
    spread = fit._spread(head, higher)
    near = np.asarray(head.eye) == 0
    assert 0.06 < spread[near, 1].max() < 0.12 and not spread[~near].any()
    seen = heads.landmarks(head, heads.place_head(head, neutral + spread, centers, pose))
    found = fit.fit_portrait(head, (np.asarray(seen)[:, :2] + 1) / 2)

    def error(shape):
        neutral, centers = heads.person(head, jnp.asarray(found.identity))
        own = heads.absolute_pose(jnp.asarray(found.motion), jnp.asarray(found.placement))
        p = heads.landmarks(head, heads.place_head(head, neutral + shape, centers, own))
        return np.linalg.norm(np.asarray(p - seen)[lids, :2], axis=-1).mean()

    assert error(found.shape) < 0.4 * error(0.0)


def test_shape_is_spread_as_the_textbook_regression_says(head):
    left = np.random.default_rng(0).normal(size=(468, 2)) * 0.05
    opened = np.asarray(head.base, np.float64)
    opened = opened + 0.6 * np.asarray(head.expression)[EXPRESSION_NAMES.index("jawOpen")]
    index, weight = np.asarray(head.landmark_vertices), np.asarray(head.landmark_weights)
    points = np.einsum("lkc,lk->lc", opened[index], weight)[:468]

    def covariance(a, b):
        square = np.square(a[:, None] - b[None]).sum(-1)
        return sum(fit.SPREAD_CM**2 * np.exp(-square / 2 / w**2) for w in fit.SPREAD_WIDTHS_CM)

    noise = np.diag(np.square(fit.SPREAD_OVER))
    right = covariance(opened, points) @ np.linalg.inv(covariance(points, points) + noise) @ left
    right[np.asarray(head.eye) > 0] = 0.0
    np.testing.assert_allclose(fit._spread(head, left), right, atol=2e-5)


def test_sequence_fit_follows_a_mouth_that_opens(head):
    jaw = np.linspace(0, 0.5, 6, dtype=np.float32)
    frames = np.stack([project(head, motion(jawOpen=j, yaw=0.05)) for j in jaw])
    reference = fit.fit_portrait(head, (frames[0, :, :2] + 1) / 2)
    found = fit.fit_sequence(head, (frames[..., :2] + 1) / 2, reference)
    got = found[:, MOTION_INDEX["jawOpen"]]
    assert np.corrcoef(got, jaw)[0, 1] > 0.99
    assert abs(got[-1] - got[0] - 0.5) < 0.15
    assert np.abs(found[:, 3:7]).max() < 0.05  # it did not move


def test_driving_with_zero_motion_keeps_the_portrait_in_place(head):
    own = motion(yaw=0.2, browInnerUp_L=0.5, eyeBlink_L=0.2, jawOpen=0.3)
    pose = heads.drive(jnp.asarray(own), jnp.asarray(PLACEMENT), jnp.zeros(54))
    expected = heads.rotation(*jnp.asarray(own[:3]))
    np.testing.assert_allclose(pose.rotation, expected, atol=1e-6)
    np.testing.assert_allclose(pose.placement, PLACEMENT, atol=1e-6)
    names = [n for n in MOTION_INDEX][EXPRESSION]
    expression = dict(zip(names, np.asarray(pose.expression), strict=True))
    assert expression["jawOpen"] == 0  # silence closes the mouth
    np.testing.assert_allclose(expression["browInnerUp_L"], 0.5)  # brows are who it is
