"""Probes find what was planted and nothing in noise."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.metrics import probes

PEOPLE, STATES, DIM = 12, 10, 16
GROUPS = np.repeat(np.arange(PEOPLE), STATES)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_auc_of_small_cases():
    assert probes.auc(np.array([1, 2, 3, 4]), np.array([0, 0, 1, 1])) == 1
    assert probes.auc(np.array([4, 3, 2, 1]), np.array([0, 0, 1, 1])) == 0
    assert probes.auc(np.ones(6), np.array([0, 1, 0, 1, 1, 1])) == 0.5
    # One of the two true ones lies below one of the two false ones: 3 of 4 orders are right.
    assert probes.auc(np.array([1, 3, 2, 4]), np.array([0, 0, 1, 1])) == 0.75
    assert np.isnan(probes.auc(np.arange(3), np.ones(3)))


def test_folds_hold_out_whole_people(rng):
    folds = probes.held_out_folds(GROUPS, 5, rng)
    assert np.sum(folds, 0).tolist() == [1] * len(GROUPS)
    for test in folds:
        assert not set(GROUPS[test]) & set(GROUPS[~test])


def test_ridge_finds_a_planted_linear_leak_and_none_in_noise(rng):
    pose = rng.normal(size=(len(GROUPS), 3))
    noise = rng.normal(size=(len(GROUPS), DIM))
    planted = noise + pose @ rng.normal(size=(3, DIM)) * 4
    found = probes.ridge(planted, pose, GROUPS)
    assert found["score"] > 0.8 and found["low"] > 0.5
    nothing = probes.ridge(noise, pose, GROUPS)
    assert -0.25 < nothing["score"] < 0.1 and nothing["low"] < 0
    assert probes.ridge(planted, pose, GROUPS) == found  # deterministic


def test_ridge_recovers_the_share_that_is_linear(rng):
    code = rng.normal(size=(len(GROUPS) * 10, 4))
    target = code[:, :1] + rng.normal(size=(len(code), 1))  # half of the variance
    groups = np.repeat(np.arange(40), 30)
    assert probes.ridge(code, target, groups)["score"] == pytest.approx(0.5, abs=0.06)


def test_ridge_does_not_profit_from_knowing_people(rng):
    """A code that names the person predicts a person's own habits only of people it has met."""
    names, habit = np.eye(PEOPLE)[GROUPS], rng.normal(size=(PEOPLE, 2))[GROUPS]
    assert probes.ridge(names, habit, GROUPS)["score"] < 0.05


def test_a_constant_target_is_left_out(rng):
    code = rng.normal(size=(len(GROUPS), 3))
    found = probes.ridge(code, np.concatenate([code[:, :1], 0 * code[:, :1]], 1), GROUPS)
    assert found["score"] > 0.9 and np.isnan(found["per_target"][1])


def test_identity_is_found_where_it_was_planted(rng):
    noise = rng.normal(size=(len(GROUPS), DIM))
    planted = noise.copy()
    planted[:, :8] = rng.normal(size=(PEOPLE, 8))[GROUPS] + 0.1 * planted[:, :8]
    assert probes.same_person(planted, GROUPS)["score"] > 0.9
    assert probes.which_person(planted, GROUPS)["score"] > 0.9
    nothing = probes.same_person(noise, GROUPS)
    assert 0.35 < nothing["score"] < 0.65 and nothing["low"] < 0.5 < nothing["high"]
    share = probes.which_person(noise, GROUPS)
    assert share["chance"] == pytest.approx(1 / PEOPLE)
    assert share["low"] < share["chance"] + 0.02 and share["score"] < 0.25


def test_too_few_people_give_no_number(rng):
    code, groups = rng.normal(size=(20, 4)), np.repeat([0, 1], 10)
    assert np.isnan(probes.ridge(code, code, groups)["score"])
    assert np.isnan(probes.same_person(code, groups)["score"])
    assert "nan" in probes.table(
        [{"question": "q", "code": "c", "measure": "m", **probes.same_person(code, groups)}]
    )
