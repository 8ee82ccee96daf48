import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, SpaceConfig, space_of
from vasa_jax.losses.closures import unsealed
from vasa_jax.losses.diffusion import MotionLossConfig, group_weights, motion_loss

LATENT = space_of(SpaceConfig(kind="latent", dynamics=6))


@pytest.mark.parametrize("space", [ARKIT, LATENT], ids=["arkit", "latent"])
def test_pose_and_dynamics_weigh_the_same(space):
    weights = group_weights(MotionLossConfig(), space)
    pose = weights[list(space.groups["pose"])].sum()
    np.testing.assert_allclose(pose, weights.sum() - pose, rtol=1e-5)


def test_a_weight_is_that_of_its_group_over_its_size_or_of_the_balance():
    cfg = MotionLossConfig(groups={"dynamics": 3.0})
    np.testing.assert_allclose(group_weights(cfg, LATENT), [1 / 7] * 7 + [3 / 6] * 6, rtol=1e-6)
    with pytest.raises(UserError, match=r"no lips in latent .* there are pose, dynamics"):
        group_weights(MotionLossConfig(groups={"lips": 1.0}), LATENT)


def test_an_error_of_one_everywhere_costs_the_sum_of_the_weights():
    target = np.zeros((2, 5, MOTION_DIM), np.float32)
    valid = np.ones((2, 5), bool)
    loss, terms = motion_loss(MotionLossConfig(), ARKIT, jnp.asarray(target + 1), target, valid)
    np.testing.assert_allclose(loss, 2.0, rtol=1e-5)
    np.testing.assert_allclose([float(v) for v in terms.values()], 1.0, rtol=1e-5)


def test_frames_that_do_not_count_may_hold_nan():
    rng = np.random.default_rng(0)
    target = rng.standard_normal((1, 6, MOTION_DIM)).astype(np.float32)
    guess = rng.standard_normal((1, 6, MOTION_DIM)).astype(np.float32)
    valid = np.arange(6)[None] < 4
    cfg = MotionLossConfig(velocity=1.0)
    loss, _ = motion_loss(cfg, ARKIT, guess[:, :4], target[:, :4], valid[:, :4])
    target[:, 4:], guess[:, 4:] = np.nan, np.nan
    padded, _ = motion_loss(cfg, ARKIT, guess, target, valid)
    np.testing.assert_allclose(padded, loss, rtol=1e-5)


def test_the_velocity_term_ignores_a_constant_offset():
    target = np.random.default_rng(0).standard_normal((1, 6, MOTION_DIM)).astype(np.float32)
    valid = np.ones((1, 6), bool)
    plain, _ = motion_loss(MotionLossConfig(), ARKIT, target + 0.5, target, valid)
    with_velocity, _ = motion_loss(
        MotionLossConfig(velocity=3.0), ARKIT, target + 0.5, target, valid
    )
    np.testing.assert_allclose(with_velocity, plain, rtol=1e-4)


def lips(jaw_open, mouth_close=0.0):
    """Motion (1, T, M) of these weights, everything else 0."""
    motion = np.zeros((1, len(jaw_open), MOTION_DIM), np.float32)
    motion[..., MOTION_INDEX["jawOpen"]] = jaw_open
    motion[..., MOTION_INDEX["mouthClose"]] = mouth_close
    return motion


def test_only_lips_that_should_be_shut_are_charged_for_their_gap():
    # One unit of jawOpen parts the lips by 3.27 cm (the table measured on the head).
    target, valid = lips([0.0, 0.2, 0.0, 0.0]), np.ones((1, 4), bool)
    charge = unsealed(jnp.asarray(lips([0.1, 0.0, 0.0, 0.2])), target, valid)
    np.testing.assert_allclose(charge, [(0.327**2 + 0.654**2) / 4], rtol=1e-5)
    # An open jaw behind closed lips is no gap, neither in the truth nor in the guess.
    closed = lips([0.4], 0.4)
    assert unsealed(jnp.asarray(closed), lips([0.0]), valid[:, :1]) == 0.0
    assert unsealed(jnp.asarray(lips([0.1])), closed, valid[:, :1]) > 0.1


def test_gaps_that_nobody_knows_or_counts_are_free():
    target, guess = lips([0.0, np.nan]), lips([0.1, np.nan])
    valid, trust = np.array([[True, False]]), np.ones((1, MOTION_DIM), np.float32)
    np.testing.assert_allclose(unsealed(guess, target, valid, trust), [0.327**2], rtol=1e-5)
    assert unsealed(guess, target, valid, trust * 0)[0] == 0.0
    trust[0, MOTION_INDEX["jawOpen"]] = 0.25
    np.testing.assert_allclose(unsealed(guess, target, valid, trust), [0.327**2 / 4], rtol=1e-5)
