"""Obedience, on faces that obey by construction."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.evaluate import controls
from vasa_jax.metrics import motion


def _look(**changes) -> controls.Look:
    values = {
        "found": 1.0, "gaze_deg": np.zeros(2), "scale": 60.0, "signs": np.zeros(8),
        "landmarks": np.zeros((1, 478, 3)), "typical": 0,
    }  # fmt: skip
    return controls.Look(**(values | changes))


def test_gaze_and_distance_are_judged_against_the_neutral_clip():
    base = _look(gaze_deg=np.array([3.0, 5.0]))
    got = controls.judge("gaze", (20.0, 0.0), _look(gaze_deg=np.array([20.0, 9.0])), base)
    assert got["error_deg"] == pytest.approx(5.0)
    # Nearer by 0.8 is larger by 1.25.
    got = controls.judge("distance", 0.8, _look(scale=75.0), base)
    assert got["measured"] == pytest.approx(0.8) and got["error_ratio"] == pytest.approx(0.0)


@pytest.mark.parametrize("name", list(controls.EMOTION_SIGNS))
def test_each_emotion_is_recognised_by_its_own_signs(name):
    change = np.array(controls.EMOTION_SIGNS[name]) * controls.UNITS * 0.5
    got = controls.judge("emotion", name, _look(signs=change), _look())
    assert got["recognised"] and got["cosine"] == pytest.approx(1.0)


def test_a_corner_that_rises_on_a_face_that_hangs_to_the_other_side_counts():
    hangs, rises = np.zeros(8), np.zeros(8)
    hangs[-1], rises[-1] = -0.02, 0.02  # eye distances: as uneven as before, the other way
    for a, b in ((hangs, rises), (rises, hangs)):
        got = controls.judge("emotion", "contempt", _look(signs=b), _look(signs=a))
        assert got["recognised"] and got["signs"]["one_sided"] == pytest.approx(1.0)


def test_no_change_is_neutral():
    assert controls.recognise_emotion(np.zeros(8))[0] == "neutral"


def test_signs_do_not_follow_pose_or_size():
    rng = np.random.default_rng(0)
    shape = rng.uniform(-0.5, 0.5, (478, 3))
    shape[list(motion.RIGID_POINTS)] = motion.RIGID_SHAPE
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    flip = np.array([1, -1, -1])
    pair = np.stack([shape * flip * 60, shape @ turn.T * flip * 90 + [30, 20, 0]])
    a, b = controls.facial_signs(pair)
    # Lids and lips are measured in the picture, where a turn may foreshorten; the rest is 3D.
    keep = [0, 1, 2, 3, 5, 7]
    np.testing.assert_allclose(a[keep], b[keep], atol=1e-6)


def test_summary_reports_the_slope_of_gaze():
    rows = [
        {"kind": "gaze", "asked": g, "measured": [0.5 * g[0], 0.0], "error_deg": 1.0}
        for g in ((-20.0, 0.0), (20.0, 0.0), (0.0, 10.0))
    ]
    got = controls.summarise(rows)
    assert got["gaze_slope_yaw"] == pytest.approx(0.5)
    assert got["gaze_slope_pitch"] == pytest.approx(0.0)
    assert "gaze slope yaw" in controls.table(rows)


def test_a_face_that_is_lost_while_its_eyes_shut_shows_no_blink():
    frames = [np.zeros((4, 4, 3), np.uint8)] * 60
    lost = _look(landmarks=np.full((60, 478, 3), np.nan))
    assert controls.blink_frames(frames, lost) == []
