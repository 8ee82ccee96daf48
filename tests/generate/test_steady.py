import numpy as np
import pytest
from scipy.signal import lfilter

from vasa_jax.core.arkit import EXPRESSION, MOTION_INDEX
from vasa_jax.core.types import Controls
from vasa_jax.generate.controls import controls
from vasa_jax.generate.finish.steady import ANGLES, FOLLOW, HELD, calm, held_place, settle
from vasa_jax.generate.live.steering import Steering
from vasa_jax.motion.arkit.lips import lip_gap_cm


def test_angles_are_low_passed_as_scipy_does_it_and_nothing_else_is_touched():
    motion = np.random.default_rng(0).normal(size=(50, 54)).astype(np.float32) * 1e-3
    got = calm(motion)
    for i in ANGLES:  # of turns that are small enough not to bend
        want, _ = lfilter([FOLLOW], [1, FOLLOW - 1], motion[:, i], zi=[(1 - FOLLOW) * motion[0, i]])
        np.testing.assert_allclose(got[:, i], want, atol=1e-6)
    np.testing.assert_array_equal(np.delete(got, ANGLES, 1), np.delete(motion, ANGLES, 1))
    assert calm(motion[:0]).shape == (0, 54)


def test_no_turn_goes_too_far_and_small_ones_stay():
    motion = np.zeros((40, 54), np.float32)
    motion[:, ANGLES] = np.radians([40.0, -60.0, 5.0])
    yaw, pitch, roll = np.degrees(calm(motion)[-1, ANGLES])
    assert 20 < yaw < 25 and -18 < pitch < -17 and 4.7 < roll < 5


def test_piece_by_piece_is_the_same_as_at_once():
    motion = np.random.default_rng(1).normal(size=(20, 54)).astype(np.float32)
    first = calm(motion[:7])
    parts = [first, calm(motion[7:], first[-1, ANGLES])]
    np.testing.assert_allclose(np.concatenate(parts), calm(motion), atol=1e-6)


def test_an_asked_distance_wins_over_the_portraits_own():
    goal, weight = held_place(Controls.none(2))
    np.testing.assert_array_equal(goal, 0.0)
    np.testing.assert_allclose(weight, HELD)
    goal, weight = held_place(controls(distance=0.8).rows(2))
    np.testing.assert_allclose(goal, [[0, 0, -np.log(0.8)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(weight, [[HELD, HELD, 1.0]] * 2)


def speech(jaw_T, **more):
    motion = np.zeros((len(jaw_T), 54), np.float32)
    motion[:, MOTION_INDEX["jawOpen"]] = jaw_T
    for name, value in more.items():
        motion[:, MOTION_INDEX[name]] = value
    return motion


def live(motion, controls):
    """What a live stream makes of the same motion, frame by frame."""
    steering, out = Steering(seed=0, asked=None), []
    for i in range(len(motion)):
        row = Controls(*(np.asarray(x)[i : i + 1] for x in controls))
        out.append(steering.finish(motion[i : i + 1], row, [True])[0])
    return np.stack(out)


JAW = np.tile([0.25, 0.25, 0.25, 0.25, 0.04, 0.25], 20)
CLOSED = np.arange(len(JAW)) % 6 == 4


@pytest.mark.parametrize("finish", (settle, live))
def test_lips_that_come_near_touch_and_open_ones_stay(finish):
    motion = speech(JAW)
    gap = lip_gap_cm(finish(motion, Controls.none(len(JAW)))[:, EXPRESSION])
    np.testing.assert_allclose(gap[~CLOSED], 3.27 * 0.25, rtol=1e-5)
    near = gap[CLOSED][2:-2]  # where the usual gap is that of speech
    assert (near < 0.35 * 3.27 * 0.04).all()


@pytest.mark.parametrize("finish", (settle, live))
def test_lips_at_rest_and_lips_that_hold_a_sound_stay(finish):
    for jaw in (0.01, 0.1, 0.3):  # a mouth that is never quite shut; a hum; a long vowel
        motion = speech(np.full(80, jaw))
        gap = lip_gap_cm(finish(motion, Controls.none(80))[:, EXPRESSION])
        np.testing.assert_allclose(gap, 3.27 * jaw, rtol=1e-4)


@pytest.mark.parametrize("finish", (settle, live))
@pytest.mark.parametrize("emotion", ("disgusted", "surprised", "happy"))
def test_an_emotion_opens_no_lips_that_speech_shuts(finish, emotion):
    asked = controls(emotion={emotion: 0.8}).rows(len(JAW))
    jaw = np.where(CLOSED, 0.0, JAW)
    gap = lip_gap_cm(finish(speech(jaw), asked)[:, EXPRESSION])
    assert (gap[CLOSED][2:-2] < 0.02).all()
    rest = lip_gap_cm(finish(speech(0.0 * JAW), asked)[:, EXPRESSION])
    assert (rest[40:-40] > 0.03).all()  # a smile in silence shows what it shows
