"""What is done to a motion after the model, part by part, whatever way it is cut into calls."""

import numpy as np
import pytest
from scipy.signal import lfilter

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.space import ARKIT, SpaceConfig, space_of
from vasa_jax.core.types import POSE, Controls
from vasa_jax.generate.controls import controls
from vasa_jax.generate.finish.arkit import OPENERS, ArkitFinish, loud_frames, speaking
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.finish.lag import Lag
from vasa_jax.generate.finish.pose import ANGLES, FOLLOW, HELD, PLACE, PoseFinish, held_place
from vasa_jax.motion.arkit.lips import lip_gap_cm

LATENT = space_of(SpaceConfig(kind="latent", dynamics=16, origin="a"))


def finished(motion, asked=None, *, space=ARKIT, seed=0, **more):
    """A whole motion by a new stream's finish; somebody speaks all the time."""
    rows = Controls.none(len(motion)) if asked is None else asked.rows(len(motion))
    return finish_for(space, seed=seed)(motion, rows, [True] * len(motion), **more)


def test_a_lag_is_the_filter_of_scipy_and_starts_where_its_target_is():
    given = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    lag, part = Lag(0.3), 1 - np.exp(-1 / 7.5)
    got = np.stack([lag(row) for row in given])
    want, _ = lfilter([part], [1, part - 1], given, axis=0, zi=(1 - part) * given[:1])
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("space", (ARKIT, LATENT), ids=("arkit", "latent"))
def test_angles_are_low_passed_as_scipy_does_it(space):
    motion = np.random.default_rng(0).normal(size=(50, space.dim)).astype(np.float32) * 1e-3
    got = finished(motion, space=space)
    for i in ANGLES:  # of turns that are small enough not to bend
        want, _ = lfilter([FOLLOW], [1, FOLLOW - 1], motion[:, i], zi=[(1 - FOLLOW) * motion[0, i]])
        np.testing.assert_allclose(got[:, i], want, atol=1e-6)


def test_no_turn_goes_too_far_and_small_ones_stay():
    motion = np.zeros((40, 54), np.float32)
    motion[:, ANGLES] = np.radians([40.0, -60.0, 5.0])
    yaw, pitch, roll = np.degrees(finished(motion)[-1, ANGLES])
    assert 20 < yaw < 25 and -18 < pitch < -17 and 4.7 < roll < 5


@pytest.mark.parametrize("space", (ARKIT, LATENT), ids=("arkit", "latent"))
def test_however_frames_are_cut_into_calls_not_a_bit_changes(space):
    rng, total = np.random.default_rng(1), 300
    motion = rng.normal(0.1, 0.3, (total, space.dim)).astype(np.float32)
    rows = controls(
        gaze=[[0, -10, 0], [4, 10, 2]], distance=[[0, 1], [5, 0.8]],
        emotion={"happy": [[0, 0], [6, 1]], "sad": 0.3},
    ).rows(total)  # fmt: skip
    off = (np.arange(total) // 60 % 2).astype(np.float32)  # asked for and let go, again and again
    rows = rows._replace(gaze_on=off, distance_on=off, emotion_on=off)
    loud = np.repeat(rng.random(20) < 0.5, 15)
    whole = finish_for(space, seed=4)(motion, rows, loud, pose_deg=(5, -3, 2))
    assert whole.shape == motion.shape and whole.dtype == np.float32
    for every in (1, 2, 7, 64):
        finish, parts = finish_for(space, seed=4), []
        for start in range(0, total, every):
            part = slice(start, start + every)
            cut = Controls(*(x[part] for x in rows))
            parts.append(finish(motion[part], cut, loud[part], pose_deg=(5, -3, 2)))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    empty = finish_for(space, seed=4)(motion[:0], Controls.none(0), [])
    assert empty.shape == (0, space.dim)


def test_a_space_gets_what_its_numbers_can_have():
    assert isinstance(finish_for(ARKIT, seed=0), ArkitFinish)
    assert isinstance(finish_for(LATENT, seed=0), PoseFinish)
    motion = np.random.default_rng(2).normal(size=(200, LATENT.dim)).astype(np.float32)
    given = motion.copy()
    everything = controls(gaze=[20, 0], distance=0.8, emotion={"happy": 1.0})
    got = finished(motion, everything, space=LATENT)
    np.testing.assert_array_equal(motion, given)
    np.testing.assert_array_equal(got[:, POSE.stop :], motion[:, POSE.stop :])
    # The pose is the same as in the space of named weights.
    named = np.zeros((200, 54), np.float32)
    named[:, POSE] = motion[:, POSE]
    np.testing.assert_array_equal(got[:, POSE], finished(named, everything)[:, POSE])


@pytest.mark.parametrize("space", (ARKIT, LATENT), ids=("arkit", "latent"))
def test_what_is_asked_for_from_the_first_frame_on_holds_there(space):
    motion = np.zeros((30, space.dim), np.float32)
    motion[:, PLACE], motion[:, GAZE] = 0.3, -0.2  # far from what is asked for
    asked = controls(gaze=[20, -10], distance=0.8)
    got = finished(motion, asked, space=space, pose_deg=(10, 0, -5))
    np.testing.assert_allclose(got[:, PLACE[2]], -np.log(0.8), atol=1e-6)
    np.testing.assert_allclose(np.degrees(got[:, ANGLES]), [[10, 0, -5]] * 30, atol=1e-5)
    if space is ARKIT:
        np.testing.assert_allclose(np.degrees(got[:, GAZE]), [[20, -10]] * 30, atol=1e-4)


def test_what_is_asked_for_later_is_glided_to():
    motion, late = np.zeros((100, 54), np.float32), np.arange(100) >= 50
    rows = controls(gaze=[20, 0], distance=0.8).rows(100)
    rows = rows._replace(gaze_on=late.astype(np.float32), distance_on=late.astype(np.float32))
    got = finish_for(ARKIT, seed=0)(motion, rows, [True] * 100)
    assert not got[:50, [*PLACE, GAZE.start]].any()
    on_its_way = 1 - np.exp(-(np.arange(50) + 1) / (25 * 0.15))
    np.testing.assert_allclose(np.degrees(got[50:, GAZE.start]), 20 * on_its_way, atol=1e-4)
    # A place has a goal before: from it the way is as slow as the mean (0.3 s).
    assert got[-1, PLACE[2]] == pytest.approx(-np.log(0.8) * (1 - np.exp(-50 / 7.5)), abs=1e-4)
    assert 0 < np.diff(got[50:, PLACE[2]])[:20].max() < 0.06


def test_a_distance_that_is_asked_for_wins_over_the_portraits_own():
    goal, weight = held_place(Controls.none(2), 1)
    np.testing.assert_array_equal(goal, 0.0)
    np.testing.assert_allclose(weight, HELD)
    goal, weight = held_place(controls(distance=0.8).rows(2), 1)
    np.testing.assert_allclose(goal, [0, 0, -np.log(0.8)], rtol=1e-6)
    np.testing.assert_allclose(weight, [HELD, HELD, 1.0])


def test_without_controls_the_head_strays_a_fifth_as_far_and_sways_as_before():
    fast = np.where(np.arange(200) % 2, 0.01, -0.01)[:, None]  # nothing in a mean over a second
    motion = np.zeros((200, 54), np.float32)
    motion[:, PLACE] = 0.1 + fast
    want = np.repeat(0.1 * (1 - HELD) + fast, 3, 1)
    np.testing.assert_allclose(finished(motion)[25:, PLACE], want[25:], atol=1e-3)


def test_what_nobody_asked_for_is_left_alone():
    motion = np.random.default_rng(0).uniform(0, 0.9, (40, 54)).astype(np.float32)
    motion[:, [MOTION_INDEX["eyeBlink_L"], MOTION_INDEX["eyeBlink_R"]]] = 1.0  # no blink is due
    always = [*ANGLES, *PLACE, MOTION_INDEX["mouthClose"]]  # lips that come near touch
    moved = finished(motion) != motion
    assert not np.delete(moved, always, axis=1).any()
    moved = finished(motion, controls(gaze=[5, 5])) != motion
    assert moved[:, GAZE].any() and not np.delete(moved, [7, 8, *always], axis=1).any()


def speech(jaw_T, **more):
    motion = np.zeros((len(jaw_T), 54), np.float32)
    motion[:, MOTION_INDEX["jawOpen"]] = jaw_T
    for name, value in more.items():
        motion[:, MOTION_INDEX[name]] = value
    return motion


JAW = np.tile([0.25, 0.25, 0.25, 0.25, 0.04, 0.25], 20)
CLOSED = np.arange(len(JAW)) % 6 == 4


def test_lips_that_come_near_touch_and_open_ones_stay():
    gap = lip_gap_cm(finished(speech(JAW))[:, EXPRESSION])
    np.testing.assert_allclose(gap[~CLOSED], 3.27 * 0.25, rtol=1e-5)
    near = gap[CLOSED][2:-2]  # where the usual gap is that of speech
    assert (near < 0.35 * 3.27 * 0.04).all()


def test_lips_at_rest_and_lips_that_hold_a_sound_stay():
    for jaw in (0.01, 0.1, 0.3):  # a mouth that is never quite shut; a hum; a long vowel
        gap = lip_gap_cm(finished(speech(np.full(80, jaw)))[:, EXPRESSION])
        np.testing.assert_allclose(gap, 3.27 * jaw, rtol=1e-4)


@pytest.mark.parametrize("emotion", ("disgusted", "surprised", "happy"))
def test_an_emotion_opens_no_lips_that_speech_shuts(emotion):
    asked = controls(emotion={emotion: 0.8})
    jaw = np.where(CLOSED, 0.0, JAW)
    gap = lip_gap_cm(finished(speech(jaw), asked)[:, EXPRESSION])
    assert (gap[CLOSED][2:-2] < 0.02).all()
    rest = lip_gap_cm(finished(speech(0.0 * JAW), asked)[:, EXPRESSION])
    assert (rest[40:-40] > 0.03).all()  # a smile in silence shows what it shows


def test_the_lips_close_in_silence_and_open_again():
    open_mouth = np.full((40, 54), 0.5, np.float32)
    heard = [True] * 5 + [False] * 30 + [True] * 5
    got = finish_for(ARKIT, seed=0)(open_mouth, Controls.none(40), heard)
    lips = got[:, list(OPENERS)].max(1)
    np.testing.assert_allclose(lips[:10], 0.5)
    assert lips[34] < 0.02 and lips[-1] == pytest.approx(0.5)
    lids = [MOTION_INDEX[f"eyeBlink_{s}"] for s in "LR"]
    others = np.delete(got, [*OPENERS, *lids, *PLACE, *ANGLES], axis=1)
    np.testing.assert_allclose(others, 0.5, atol=1e-6)
    np.testing.assert_allclose(got[:, PLACE], 0.5 * (1 - HELD), atol=1e-6)


def test_lips_may_part_one_frame_before_a_sound():
    loud = loud_frames(np.array([-80.0, -60.0, -20.0, -80.0, -80.0, -20.0]))
    assert loud.tolist() == [False, False, True, False, False, True]
    assert speaking(loud, 6).tolist() == [False, True, True, False, True, True]
    assert speaking(loud, 5).tolist() == [False, True, True, False, True]  # the sixth is known
    assert speaking(loud[:5], 5).tolist() == [False, True, True, False, False]
