"""Pooling of clips, and identity's arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vasa_jax.evaluate import suite
from vasa_jax.metrics import identity


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        ci = suite.bootstrap(rng.normal(3.0, 1.0, 30), rounds=400)
        hits += ci["low"] <= 3.0 <= ci["high"]
    assert 0.88 <= hits / 200 <= 0.99


def test_rates_are_weighted_by_their_counts_and_unknown_clips_left_out():
    got = suite.bootstrap([1.0, 0.0, np.nan], [30, 10, 5])
    assert got["mean"] == pytest.approx(0.75) and got["n"] == 2


def test_table_has_the_reference_beside_the_value():
    summary = suite.summarise([{"correlation": 0.3}, {"correlation": 0.5}])
    text = suite.table(summary, columns={"real": {"correlation": {"mean": 0.41}}})
    assert "| 0.40 |" in text and "| 0.41 |" in text


def test_json_has_no_nan():
    text = json.dumps(suite.plain({"a": float("nan"), "b": [np.float32(1.5)]}), allow_nan=False)
    assert json.loads(text) == {"a": None, "b": [1.5]}


def test_streamed_flicker_equals_the_definition():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (60, 60, 3), dtype=np.uint8) for _ in range(6)]
    lm = np.zeros((478, 3))
    lm[0], lm[1:] = (25, 25, 0), (35, 35, 0)
    stream = suite._Flicker()
    for frame in frames:
        stream.add(frame, lm)
    keep = suite.image.outside_head(lm, 60, 60)
    keep[::2], keep[:, ::2] = False, False
    assert stream.value() == pytest.approx(suite.image.flicker(frames, keep))


def test_position_and_threshold_between_two_distributions():
    assert identity.position(0.5, same=0.8, different=0.0) == pytest.approx(0.625)
    rng = np.random.default_rng(0)
    same, different = rng.normal(1, 0.5, 4000), rng.normal(0, 0.5, 4000)
    threshold, error = identity.equal_error_threshold(same, different)
    # Two equal Gaussians two deviations apart: the middle, and the tail beyond one deviation.
    assert threshold == pytest.approx(0.5, abs=0.05)
    assert error == pytest.approx(0.1587, abs=0.015)
