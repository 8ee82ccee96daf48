import numpy as np

from vasa_jax.core.arkit import MOTION_INDEX
from vasa_jax.core.types import FPS
from vasa_jax.generate.finish.blinks import Blinker

LEFT = MOTION_INDEX["eyeBlink_L"]


def blinking(motion, seed):
    return Blinker(seed=seed)(motion)


def count(motion):
    closed = motion[:, LEFT] > 0.6
    return int((closed[1:] & ~closed[:-1]).sum() + closed[0])


def test_open_eyes_blink_at_a_human_rate():
    minutes = 10
    blinks = count(blinking(np.zeros((60 * minutes * FPS, 54), np.float32), 3))
    assert 12 <= blinks / minutes <= 26


def test_a_model_that_blinks_enough_is_left_alone():
    motion = np.zeros((30 * FPS, 54), np.float32)
    motion[::20, LEFT] = 1.0  # every 0.8 s
    np.testing.assert_array_equal(blinking(motion, 0), motion)


def test_blinks_touch_only_lids_and_follow_the_seed():
    motion = np.random.default_rng(0).uniform(0, 0.2, (500, 54)).astype(np.float32)
    a, b, c = (blinking(motion, s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    changed = (a != motion).any(0)
    assert {i for i in np.flatnonzero(changed)} <= {LEFT, MOTION_INDEX["eyeBlink_R"]}


def test_longer_speech_keeps_the_blinks_already_placed():
    motion = np.zeros((800, 54), np.float32)
    np.testing.assert_array_equal(blinking(motion[:400], 5), blinking(motion, 5)[:400])


def test_a_blink_of_the_model_that_begins_within_ours_joins_it():
    motion = np.zeros((200, 54), np.float32)
    start = int(np.flatnonzero(blinking(motion, 0)[:, LEFT])[0])
    motion[start + 3 : start + 6, LEFT] = 1.0
    got = blinking(motion, 0)[: start + 10, LEFT]
    np.testing.assert_allclose(got[start:], [0.55, 1, 1, 1, 1, 1, 0.1, 0, 0, 0])
