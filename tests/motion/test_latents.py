import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import SpaceConfig, space_of
from vasa_jax.motion.latents import MotionStats


def motions(frames=200):
    rng = np.random.default_rng(0)
    m = rng.normal(0, 0.1, (frames, MOTION_DIM)).astype(np.float32)
    m[:, EXPRESSION] = rng.uniform(0, 0.9, (frames, 45))
    m[:, MOTION_INDEX["tz"]] = 0.0
    return m


def test_normalising_there_and_back_changes_nothing():
    m = motions()
    stats = MotionStats.of(m)
    np.testing.assert_allclose(stats.denormalize(stats.normalize(m)), m, atol=1e-5)


def test_normalised_motion_has_unit_deviation_unless_it_hardly_moves():
    m = motions()
    m[:, MOTION_INDEX["cheekPuff_L"]] = 0.5 + 1e-4 * np.arange(len(m)) / len(m)
    z = np.asarray(MotionStats.of(m).normalize(m))
    still = [MOTION_INDEX["tz"], MOTION_INDEX["cheekPuff_L"]]
    moving = np.setdiff1d(np.arange(MOTION_DIM), still)
    np.testing.assert_allclose(z[:, moving].std(0), 1.0, atol=1e-3)
    assert (z[:, still].std(0) < 0.01).all()


def test_physical_motion_stays_in_range():
    stats = MotionStats.of(motions())
    wild = np.asarray(stats.denormalize(np.full((3, MOTION_DIM), 50.0, np.float32)))
    assert wild[:, EXPRESSION].max() <= 1.0 and (wild[:, MOTION_INDEX["tz"]] == 0).all()


def test_statistics_survive_json_and_refuse_another_vector():
    stats = MotionStats.of(motions())
    back = MotionStats.from_json(stats.to_json())
    np.testing.assert_allclose(back.std, stats.std)
    with pytest.raises(UserError, match="another motion vector"):
        MotionStats.from_json({**stats.to_json(), "names": ["a"]})


def test_a_code_has_no_bounds_but_the_pose_has_its_own():
    space = space_of(SpaceConfig(kind="latent", dynamics=3))
    got = MotionStats.unit(space).denormalize(np.full((2, 10), 50.0, np.float32))
    np.testing.assert_array_equal(got[0], [50] * 5 + [0] + [50] * 4)


def test_statistics_of_another_code_are_refused():
    ours, theirs = (
        space_of(SpaceConfig(kind="latent", dynamics=3, origin=name * 64)) for name in "ab"
    )
    table = MotionStats.unit(theirs).to_json()
    MotionStats.from_json(table, theirs)
    with pytest.raises(UserError, match="statistics is in .* origin bbbb.* origin aaaa.*wanted"):
        MotionStats.from_json(table, ours)
    # Tables of earlier versions say no space; their names do.
    del table["space"]
    with pytest.raises(UserError, match="another motion vector"):
        MotionStats.from_json(table)
