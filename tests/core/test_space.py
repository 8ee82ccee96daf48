import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, SpaceConfig, alike, space_of
from vasa_jax.core.types import POSE

LATENT = SpaceConfig(kind="latent", dynamics=5, origin="a" * 64)
SPACES = pytest.mark.parametrize("space", [ARKIT, space_of(LATENT)], ids=["arkit", "latent"])


@SPACES
def test_groups_are_a_partition_that_begins_with_the_pose(space):
    assert sorted(i for group in space.groups.values() for i in group) == list(range(space.dim))
    assert space.groups["pose"] == tuple(range(POSE.start, POSE.stop))
    assert set(space.balance) == set(space.groups) and set(space.heard) < set(space.groups)
    assert len(set(space.names)) == space.dim == len(space.low) == len(space.high)
    assert space.names[:7] == ("yaw", "pitch", "roll", "tx", "ty", "tz", "log_scale")


def test_sizes_are_those_of_the_design_and_the_paper():
    assert ARKIT.dim == 54  # 7 pose, 2 gaze, 45 weights
    assert space_of(SpaceConfig(kind="latent", dynamics=128)).dim == 7 + 128


def test_the_sound_decides_the_mouth_or_all_dynamics():
    heard = {ARKIT.names[i] for i in ARKIT.heard_numbers}
    assert {"jawOpen", "mouthPucker", "mouthSmile_L", "cheekPuff_R"} < heard
    assert not heard & {"yaw", "gaze_yaw", "eyeBlink_L", "browInnerUp_R"}
    assert list(space_of(LATENT).heard_numbers) == [7, 8, 9, 10, 11]


def test_a_number_per_group_becomes_one_per_dimension():
    got = space_of(LATENT).per_dim({"heard": 0.2, "pose": 3.0})
    np.testing.assert_array_equal(got, np.float32([3] * 7 + [0.2] * 5))
    lids = ARKIT.per_dim({"lids": 1.0}, default=0.0)
    assert [ARKIT.names[i] for i in np.flatnonzero(lids)] == ["eyeBlink_L", "eyeBlink_R"]
    with pytest.raises(ValueError, match=r"no group 'lips'; there are heard, pose, dynamics"):
        space_of(LATENT).per_dim({"lips": 1.0})


@SPACES
def test_depth_is_fixed_and_only_weights_are_bounded(space):
    bounded = [n for n, a, b in zip(space.names, space.low, space.high, strict=True)
               if np.isfinite(a) or np.isfinite(b)]  # fmt: skip
    assert space.low[space.index["tz"]] == space.high[space.index["tz"]] == 0
    assert bounded == ["tz"] + [n for n in space.names if n not in space.names[:9] and
                                not n.startswith("z_dyn")]  # fmt: skip


def test_stretches_of_equal_bounds_cover_all():
    inf = np.inf
    assert ARKIT.stretches == ((0, 5, -inf, inf), (5, 6, 0, 0), (6, 9, -inf, inf), (9, 54, 0, 1))
    assert space_of(LATENT).stretches == ((0, 5, -inf, inf), (5, 6, 0, 0), (6, 12, -inf, inf))


def test_a_code_means_nothing_to_another_encoder():
    other = SpaceConfig(kind="latent", dynamics=5, origin="b" * 64)
    assert alike(LATENT, LATENT) and not alike(LATENT, other) and not alike(LATENT, SpaceConfig())
    # What a latent space would be does not matter to named weights.
    assert alike(SpaceConfig(), SpaceConfig(dynamics=7))
    space_of(LATENT).require(LATENT, "the face")
    with pytest.raises(UserError, match=r"the face is in .*origin bbbbbbbbbbbb.*origin aaaaaaaaaa"):
        space_of(LATENT).require(other, "the face")
    with pytest.raises(UserError, match="54 named weights"):
        ARKIT.require(LATENT, "the motion model")


def test_what_is_no_space_is_refused():
    with pytest.raises(ValueError, match="arkit and latent"):
        SpaceConfig(kind="flame")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 numbers"):
        SpaceConfig(kind="latent", dynamics=0)
