"""Truth of swaps on the built-in head: own parts give the own picture, people are held out."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError

pytest.importorskip("numba")
pytest.importorskip("cv2")

from vasa_jax.synth.person import picture as synthetic
from vasa_jax.synth.person import swaps  # noqa: E402
from vasa_jax.synth.person.load_head import load_mesh_head  # noqa: E402
from vasa_jax.synth.person.mesh_head import crop_placement, move_placement  # noqa: E402
from vasa_jax.synth.person.person import make_person  # noqa: E402

SIZE = 64


@pytest.fixture(scope="module")
def head():
    return load_mesh_head(None)


@pytest.fixture(scope="module")
def people(head):
    return [make_person(swaps.FIRST_SEED + i, head, texture=128) for i in range(3)]


@pytest.fixture
def states(people, head):
    rng = np.random.default_rng(0)
    return [swaps.draw_state(rng, p, head) for p in people]


def test_swapping_own_parts_gives_the_own_picture(people, states, head):
    own = swaps.render(people[0], states[0], head=head, size=SIZE)
    again = swaps.render(people[0], swaps.swap(states[0], states[0]), head=head, size=SIZE)
    np.testing.assert_array_equal(own.image, again.image)
    pair = swaps.Pair(0, 0, states[0], states[0], states[0])
    for case, state in swaps.answers(pair).items():
        picture = swaps.render(people[0], state, head=head, size=SIZE)
        np.testing.assert_array_equal(picture.image, own.image, err_msg=case)


def test_a_state_is_the_engines_own_picture(people, head):
    motion = synthetic.random_still_motion(np.random.default_rng(4), 1)
    state = swaps.state_of(people[0], motion, head)
    direct, truth = synthetic.render_still(people[0], motion, head=head, size=SIZE)
    ours = swaps.render(people[0], state, head=head, size=SIZE)
    assert np.abs(ours.image.astype(int) - direct).max() <= 1
    np.testing.assert_allclose(ours.fit.placement, truth.placement, atol=1e-6)
    np.testing.assert_allclose(
        swaps.placement(people[0], state, head), move_placement(people[0].placement, motion),
        atol=1e-9,
    )  # fmt: skip


def test_each_case_takes_pose_and_dynamics_from_where_it_says(states):
    source, other, driver = states
    asked = swaps.answers(swaps.Pair(0, 1, source, other, driver))
    for case, pose, dynamics in (
        ("self", other, other), ("pose", driver, source), ("dynamics", source, driver),
        ("both", driver, driver),
    ):  # fmt: skip
        np.testing.assert_array_equal(asked[case].motion[:7], pose.motion[:7], err_msg=case)
        np.testing.assert_array_equal(asked[case].frame, pose.frame, err_msg=case)
        np.testing.assert_array_equal(asked[case].motion[7:], dynamics.motion[7:], err_msg=case)


def test_only_what_is_swapped_moves_in_the_picture(people, states, head):
    a = people[0]
    source = swaps.render(a, states[0], head=head, size=SIZE)
    turned = swaps.render(a, swaps.swap(states[1], states[0]), head=head, size=SIZE)
    acted = swaps.render(a, swaps.swap(states[0], states[1]), head=head, size=SIZE)
    np.testing.assert_array_equal(acted.rotation, source.rotation)
    np.testing.assert_array_equal(acted.fit.placement, source.fit.placement)
    np.testing.assert_array_equal(turned.fit.motion[EXPRESSION], source.fit.motion[EXPRESSION])
    np.testing.assert_array_equal(turned.fit.motion[GAZE], source.fit.motion[GAZE])
    assert np.abs(turned.rotation - source.rotation).max() > 0.05
    np.testing.assert_array_equal(acted.fit.identity, turned.fit.identity)
    # The corners of the backdrop are A's in every picture.
    for picture in (turned, acted):
        np.testing.assert_array_equal(picture.image[:3, :3], source.image[:3, :3])


def test_a_face_keeps_its_size_in_the_square_when_another_takes_its_place(people, head):
    """The crop that fits B's face becomes the crop that fits A's."""
    b = people[1]
    b_fits = np.array(b.placement)
    try:
        b.placement = crop_placement(head, b.shape)
        state = swaps.state_of(b, np.zeros(MOTION_DIM), head)
    finally:
        b.placement = b_fits
    np.testing.assert_allclose(
        swaps.placement(people[0], state, head), crop_placement(head, people[0].shape), atol=1e-9
    )


def test_gaze_that_the_eyes_cannot_reach_is_told_as_drawn(people, head):
    motion = np.zeros(MOTION_DIM, np.float32)
    motion[MOTION_INDEX["gaze_yaw"]] = 0.8
    far = swaps.render(people[0], swaps.state_of(people[0], motion, head), head=head, size=SIZE)
    np.testing.assert_allclose(far.gaze, [0.55, 0], atol=1e-6)
    motion[MOTION_INDEX["gaze_yaw"]] = 0.3
    near = swaps.render(people[0], swaps.state_of(people[0], motion, head), head=head, size=SIZE)
    np.testing.assert_allclose(near.gaze, [0.3, 0], atol=1e-6)


def test_pairs_are_different_people_in_turn_and_repeat_with_the_seed(people, head):
    drawn = [swaps.draw_pair(3, i, people, head) for i in range(9)]
    assert [p.a for p in drawn] == [0, 1, 2] * 3
    assert all(p.a != p.b for p in drawn) and {p.b for p in drawn} == {0, 1, 2}
    again = swaps.draw_pair(3, 4, people, head)
    np.testing.assert_array_equal(again.driver.motion, drawn[4].driver.motion)
    other = swaps.draw_pair(4, 4, people, head)
    assert not np.array_equal(other.driver.motion, drawn[4].driver.motion)
    with pytest.raises(UserError, match="two people"):
        swaps.draw_pair(0, 0, people[:1], head)


def test_independent_states_have_eyes_that_do_not_follow_the_head(people, head):
    def correlation(independent: bool) -> float:
        rng = np.random.default_rng(0)
        drawn = [
            swaps.draw_state(rng, people[0], head, independent=independent).motion
            for _ in range(400)
        ]
        return float(np.corrcoef(np.stack(drawn)[:, [0, MOTION_INDEX["gaze_yaw"]]].T)[0, 1])

    assert correlation(False) > 0.3
    assert abs(correlation(True)) < 0.15


def test_seeds_lie_above_those_of_training():
    assert swaps.FIRST_SEED >= 2**31  # clips draw below it, stills count up from 0
    with pytest.raises(UserError, match="below"):
        swaps.held_out_person(0, swaps.PEOPLE_PER_SEED, load_mesh_head(None))


def test_a_person_who_was_trained_on_is_refused(people, tmp_path):
    folder = tmp_path / "synthetic"
    folder.mkdir()
    with pytest.raises(UserError, match="no face files"):
        swaps.refuse_trained_people(people, tmp_path)
    np.savez(folder / "a.npz", identity=people[0].identity + 1)
    found = swaps.refuse_trained_people(people[:1], tmp_path)
    assert found["files"] == 1 and found["nearest_sigmas"] == pytest.approx(1, abs=1e-5)
    np.savez(folder / "b.npz", identity=people[2].identity[:5])  # a shorter basis, the same person
    with pytest.raises(UserError, match=r"b\.npz"):
        swaps.refuse_trained_people(people, tmp_path)
