"""What an emotion shows on a face, and what a motion lacks of it."""

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT
from vasa_jax.core.types import EMOTIONS
from vasa_jax.generate.controls import controls
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.live.steering import Asked, Steering
from vasa_jax.motion.arkit.emotions import EMOTION_OFFSETS, INDEX, asked_feeling, feeling, weights


def test_a_name_without_a_side_means_both():
    got = weights(mouthSmile=0.4, jawOpen=0.2)
    assert {n: got[i] for n, i in INDEX.items() if got[i]} == pytest.approx(
        {"mouthSmile_L": 0.4, "mouthSmile_R": 0.4, "jawOpen": 0.2}
    )
    with pytest.raises(UserError, match="noSuchThing"):
        weights(noSuchThing=1.0)


def test_feelings_add_and_rounded_lips_pull_the_corners_in():
    emotion = np.zeros((2, len(EMOTIONS)))
    emotion[:, EMOTIONS.index("happy")], emotion[:, EMOTIONS.index("sad")] = 0.5, 0.25
    mouth = np.zeros((2, len(INDEX)))
    mouth[1, INDEX["mouthPucker"]] = 0.5
    plain, rounded = feeling(emotion, mouth)
    expected = 0.5 * EMOTION_OFFSETS["happy"] + 0.25 * EMOTION_OFFSETS["sad"]
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    smile = INDEX["mouthSmile_L"]
    assert rounded[smile] == pytest.approx(0.7 * plain[smile])
    assert rounded[INDEX["mouthFrown_L"]] == plain[INDEX["mouthFrown_L"]]


def test_what_is_not_asked_for_wants_nothing():
    gaze = controls(gaze=[5.0, 0.0]).rows(3)
    assert not asked_feeling(gaze, np.zeros((3, 54))).any()
    asked = controls(emotion={"fear": 0.5}).rows(3)
    got = asked_feeling(asked, np.zeros((3, 54), np.float32))
    np.testing.assert_allclose(got, [0.5 * EMOTION_OFFSETS["fearful"]] * 3, rtol=1e-6)


def finished(motion, asked):
    rows = asked.rows(len(motion))
    return finish_for(ARKIT, seed=0)(motion, rows, [True] * len(motion))


def test_a_motion_is_given_what_it_lacks_and_keeps_what_it_has():
    motion = np.zeros((100, 54), np.float32)
    syllables = 0.2 * np.sin(np.arange(100) * 2 * np.pi / 5)
    stretch, wide = MOTION_INDEX["mouthStretch_L"], MOTION_INDEX["eyeWide_L"]
    smile = MOTION_INDEX["mouthSmile_L"]
    motion[:, stretch] = 0.3 + syllables
    motion[:, wide], motion[:, smile] = 1.2, 0.4
    got = finished(motion, controls(emotion={"fearful": 1.0}))
    later = slice(20, 100)  # a mean of the past lets some of the syllables through
    np.testing.assert_allclose(got[later, stretch], (1.0 + syllables)[later], atol=0.03)
    assert got[later, stretch].mean() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_array_equal(got[:, wide], motion[:, wide])
    np.testing.assert_array_equal(got[:, smile], motion[:, smile])
    np.testing.assert_array_equal(
        finished(motion, controls())[:20, EXPRESSION], motion[:20, EXPRESSION]
    )


def test_a_face_that_is_asked_for_later_glides_there():
    motion = np.zeros((150, 54), np.float32)
    motion[:, EXPRESSION] = 0.1
    steering = Steering(finish_for(ARKIT, seed=0))
    loud = [True] * 50
    made = []
    for i, emotion in enumerate(({}, {"sad": 0.8}, {})):
        asked = controls(emotion=emotion, gaze=[0.0, 0.0])
        steering.ask(Asked(controls=asked), frame=50 * i)
        part = motion[50 * i : 50 * i + 50]
        made.append(steering.finish(part, asked.rows(50), loud))
    frown = np.concatenate(made)[:, MOTION_INDEX["mouthFrown_L"]]
    np.testing.assert_allclose(frown[:50], 0.1, atol=1e-6)
    at_once = finished(motion[:50], controls(emotion={"sad": 0.8}))
    frown_at_once = at_once[:, MOTION_INDEX["mouthFrown_L"]]
    np.testing.assert_allclose(frown_at_once, 0.8, atol=1e-6)
    assert frown[99] == pytest.approx(frown_at_once[25], abs=0.01)
    assert np.abs(np.diff(frown)).max() < 0.25
    assert frown[149] == pytest.approx(0.1, abs=1e-3)
    gaze = np.concatenate(made)[:, GAZE]
    np.testing.assert_allclose(gaze, 0.0, atol=1e-6)
