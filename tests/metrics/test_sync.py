"""Lip sync on mouths whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.metrics import sync
from vasa_jax.metrics.phonemes import (
    Phoneme,
    _pieces,
    expected_aperture,
    lip_time,
    spans,
)

FRAMES = 250


def _sentence(seed: int = 0) -> list[Phoneme]:
    rng = np.random.default_rng(seed)
    symbols = rng.choice(["p", "m", "b", "æ", "aɪ", "ɑ", "u", "s", "t", "n", "i", "ɛ"], 90)
    times = 0.5 + np.cumsum(rng.uniform(0.06, 0.14, 90))
    return [Phoneme(str(s), t, t + 0.08) for s, t in zip(symbols, times, strict=True)]


def _face(aperture: np.ndarray, eye_distance: float = 60.0) -> np.ndarray:
    """Landmarks with eyes ``eye_distance`` px apart and lips open by ``aperture`` of it."""
    lm = np.zeros((len(aperture), 478, 3))
    lm[:, 263, 0] = eye_distance
    for upper, lower in sync.INNER_LIPS:
        lm[:, lower, 1] = lm[:, upper, 1] + aperture * eye_distance
    return lm


def test_aperture_is_the_gap_over_the_eye_distance_at_any_size():
    gap = np.linspace(0, 0.3, 5)
    np.testing.assert_allclose(sync.lip_aperture(_face(gap, 60)), gap, atol=1e-9)
    np.testing.assert_allclose(sync.lip_aperture(_face(gap, 17)), gap, atol=1e-9)


@pytest.mark.parametrize("lag", [-5, 0, 3])
def test_a_known_lag_is_found(lag):
    words = _sentence()
    mouth = np.roll(expected_aperture(words, FRAMES), lag) * 0.2
    found = sync.measure(_face(mouth), words)
    assert found["lag_frames"] == lag
    assert found["correlation"] > 0.97


def test_a_known_correlation_is_found():
    rng = np.random.default_rng(1)
    expected = expected_aperture(_sentence(), FRAMES).astype(np.float64)
    signal = sync._steady(expected)
    noise = sync._steady(rng.normal(size=FRAMES))
    noise -= signal * (noise @ signal) / (signal @ signal)  # nothing in common
    noise *= np.linalg.norm(signal) / np.linalg.norm(noise)
    mixed = 0.6 * signal + 0.8 * noise
    got = sync.lag_correlation(expected, mixed)[sync.MAX_LAG_FRAMES]
    np.testing.assert_allclose(got, 0.6, atol=0.06)


def test_right_beats_shifted_and_another_sentence():
    words = _sentence()
    mouth = expected_aperture(words, FRAMES) * 0.2
    found = sync.measure(_face(mouth), words)
    foreign = sync.foreign_correlation(_face(mouth), [_sentence(7), _sentence(8)])
    assert found["correlation"] > 2 * found["correlation_shifted"]
    assert found["correlation"] > 2 * foreign


def test_slow_drift_and_lost_frames_do_not_matter():
    words = _sentence()
    mouth = expected_aperture(words, FRAMES) * 0.2 + np.linspace(0, 0.3, FRAMES)
    mouth[40:43] = np.nan
    found = sync.measure(_face(mouth), words)
    assert found["lag_frames"] == 0 and found["correlation"] > 0.9


def test_a_mouth_that_closes_on_every_bilabial_hits_all_and_one_that_does_not_only_by_chance():
    words = _sentence()
    bilabial = [lip_time(p) * 25 - 0.5 for p in words if p.symbol in "pbm"]
    rng = np.random.default_rng(2)
    mouth = rng.uniform(0.05, 0.2, FRAMES)
    blind = sync.closures(mouth, words)
    assert abs(blind["hit_rate"] - blind["chance"]) < 0.25
    for t in bilabial:
        mouth[round(t)] = 0.0
    hit = sync.closures(mouth, words)
    assert hit["hit_rate"] == 1.0 and hit["count"] == len(bilabial)
    assert hit["chance"] < 0.9


def test_chance_of_a_random_mouth_follows_from_the_percentile():
    # Three independent frames, each closed with probability p: 1 - (1 - p)^3.
    words = [Phoneme("t", 0.1 * i, 0.1 * i + 0.1) for i in range(8000)]
    words.append(Phoneme("p", 400.0, 400.1))
    mouth = np.random.default_rng(3).uniform(size=20000)
    p = sync.CLOSED_PERCENTILE / 100
    np.testing.assert_allclose(sync.closures(mouth, words)["chance"], 1 - (1 - p) ** 3, atol=0.02)


def test_rest_tells_a_closed_mouth_from_a_hanging_one():
    words = [p for p in _sentence() if p.start < 5]
    mouth = expected_aperture(words, FRAMES) * 0.2
    speech_end = int(words[-1].end * 25) + 12
    closed, hanging = mouth.copy(), mouth.copy()
    closed[speech_end:], hanging[speech_end:] = 0.0, 0.2
    assert sync.rest(closed, words)["ratio"] < 0.5
    assert sync.rest(hanging, words)["ratio"] > 1.0
    assert sync.rest(closed, words)["quiver"] < 0.1


def test_without_sound_nothing_is_claimed():
    found = sync.measure(_face(np.full(100, 0.1)), [])
    assert np.isnan(found["closures"]) and np.isnan(found["rest_ratio"])
    assert np.isnan(found["correlation"]) and found["num_closures"] == 0


def test_lips_are_asked_to_close_for_bilabials_and_open_for_a():
    words = [Phoneme("a", 0.5, 0.6), Phoneme("m", 0.8, 0.9), Phoneme("a", 1.1, 1.2)]
    curve = expected_aperture(words, 40)
    assert curve[12] > 0.6 and curve[18] < 0.1 and curve[26] > 0.6
    assert curve[39] < 0.25


def test_repeats_blanks_and_marks_are_read_as_ctc_says():
    names = ["a", "b", "ː", "<wb>", "<blank>", "ã"]
    got = spans([4, 0, 0, 4, 0, 2, 1, 3, 4, 5], names, blank=4)
    assert [p.symbol for p in got] == ["a", "a", "b", "a"]
    np.testing.assert_allclose([p.start for p in got], [0.02, 0.08, 0.12, 0.18])
    np.testing.assert_allclose(got[1].end, 0.10)


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 5000, 15003])
def test_pieces_tile_any_length(n):
    kept = [i for _, _, a, b in _pieces(n) for i in range(a, b)]
    assert kept == list(range(n))
    assert all(b - a <= 1000 for a, b, _, _ in _pieces(n))
