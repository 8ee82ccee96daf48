"""Head motion, blinks and gaze on faces that were turned by known angles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vasa_jax.metrics import motion


def _rotations(yaw, pitch, roll) -> np.ndarray:
    """Yaw to the right edge, pitch up, roll clockwise, as intrinsic turns about y, x, z."""
    turns = np.stack([yaw, -np.asarray(pitch), -np.asarray(roll)], -1)
    return Rotation.from_euler("YXZ", turns).as_matrix()


def _faces(yaw, pitch=None, roll=None, *, size=80.0, centre=(120.0, 110.0)) -> np.ndarray:
    """Landmarks (T, 478, 3) of the rigid points only, in picture axes."""
    yaw = np.atleast_1d(np.asarray(yaw, float))
    pitch = np.zeros_like(yaw) if pitch is None else np.atleast_1d(pitch)
    roll = np.zeros_like(yaw) if roll is None else np.atleast_1d(roll)
    turned = np.einsum("tij,pj->tpi", _rotations(yaw, pitch, roll), motion.RIGID_SHAPE)
    lm = np.zeros((len(yaw), 478, 3))
    lm[:, motion.RIGID_POINTS] = turned * size * [1, -1, -1] + [*centre, 0]
    return lm


def test_pose_is_recovered_with_the_projects_signs():
    rng = np.random.default_rng(0)
    want = rng.uniform(-0.6, 0.6, (20, 3))
    pose = motion.head_pose(_faces(*want.T, size=57.0))
    np.testing.assert_allclose(pose["angles"], want, atol=1e-6)
    np.testing.assert_allclose(pose["scale"], 57.0, rtol=1e-6)


def test_signs_as_the_viewer_sees_them():
    nose = motion.RIGID_POINTS.index(4)
    ahead = _faces(0.0)[0, motion.RIGID_POINTS[nose]]
    assert _faces(0.3)[0, motion.RIGID_POINTS[nose]][0] > ahead[0] + 5  # right
    assert _faces(0.0, [0.3])[0, motion.RIGID_POINTS[nose]][1] < ahead[1] - 5  # up
    right_eye = _faces(0.0, None, [0.3])[0, 263]
    assert right_eye[1] > _faces(0.0)[0, 263][1] + 5  # clockwise: the right side goes down


def test_lost_frames_stay_unknown_and_do_not_break_the_rest():
    lm = _faces(np.linspace(0, 0.2, 30))
    lm[7] = np.nan
    assert np.isnan(motion.head_pose(lm)["angles"][7]).all()
    found = motion.measure(lm)
    assert found["found"] == pytest.approx(29 / 30)
    assert np.isfinite(found["head_motion_deg"])


def test_steady_turning_has_its_speed_and_no_jitter():
    found = motion.measure(_faces(np.radians(np.arange(100) * 0.3 - 15)))
    assert found["head_motion_deg"] == pytest.approx(0.3, rel=0.03)
    assert found["head_jitter_deg"] < 0.05


def test_alternating_head_is_jitter_not_motion():
    shake = np.radians(0.5 * (-1.0) ** np.arange(100))
    found = motion.measure(_faces(shake))
    assert found["head_jitter_deg"] == pytest.approx(0.5, rel=0.05)
    assert found["head_motion_deg"] < 0.1


def test_nearer_is_larger():
    lm = np.concatenate([_faces(0.0, size=80.0), _faces(0.0, size=100.0)])
    scale = motion.head_pose(lm)["scale"]
    assert scale[1] / scale[0] == pytest.approx(1.25)


def test_blinks_are_counted_and_timed():
    opening = np.full(250, 0.3) + np.random.default_rng(0).normal(0, 0.005, 250)
    for at in (40, 120, 200):
        opening[at : at + 5] = [0.18, 0.08, 0.05, 0.08, 0.18]
    opening[80] = 0.05  # one frame: noise
    opening[150:180] = 0.08  # more than a second: eyes shut, no blink
    blinks = motion.find_blinks(opening)
    assert [a for a, _ in blinks] == [40, 120, 200]
    assert [b - a for a, b in blinks] == [5, 5, 5]


@pytest.mark.parametrize("yaw,pitch,head", [(0.2, 0.1, 0.0), (-0.3, 0.0, 0.0), (0.1, -0.2, 0.3)])
def test_gaze_of_turned_eyes_is_recovered(yaw, pitch, head):
    # Eyes as spheres behind their slits, in a turned head.
    rotation = _rotations([head], [0.0], [0.0])[0]
    ray = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    in_head = rotation.T @ ray
    size = 80.0
    lm = _faces([head], size=size)
    for (a, b), iris in (((33, 133), 468), ((362, 263), 473)):
        corners = motion._upright(lm[0, (a, b)])
        width = np.linalg.norm(corners[0] - corners[1])
        # On this head the slits run back towards the temples; a slit's own plane is its middle's.
        rise = np.sin(np.radians(motion.IRIS_RISE_DEG))
        flat = np.array([in_head[0], in_head[1] + rise, 0.0])
        spot = corners.mean(0) + rotation @ flat * width / motion.SLIT_TO_RADIUS
        lm[0, iris] = spot * [1, -1, -1]
    got = motion.gaze(lm)[0]
    np.testing.assert_allclose(got, (yaw, pitch), atol=np.radians(6))
