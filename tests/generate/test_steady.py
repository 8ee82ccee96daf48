import numpy as np
from scipy.signal import lfilter

from vasa_jax.core.types import Controls
from vasa_jax.generate.steady import ANGLES, FOLLOW, HELD, calm, held_place
from vasa_jax.generate.wishes import wishes


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


def test_a_wish_for_a_distance_wins_over_the_portraits_own():
    goal, weight = held_place(Controls.none(2))
    np.testing.assert_array_equal(goal, 0.0)
    np.testing.assert_allclose(weight, HELD)
    goal, weight = held_place(wishes(distance=0.8).controls(2))
    np.testing.assert_allclose(goal, [[0, 0, -np.log(0.8)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(weight, [[HELD, HELD, 1.0]] * 2)
