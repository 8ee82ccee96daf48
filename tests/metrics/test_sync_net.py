"""The sync judge's inputs and scores against constructed mouths."""

import jax
import numpy as np
import pytest

from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.metrics import sync_net


@pytest.fixture
def face():
    """A rigid cloud of landmarks with a plausible eye line and nose."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(478, 3)) * [40, 50, 20] + [300, 200, 0]
    points[33], points[263], points[2] = [260, 180, 0], [340, 180, 0], [300, 220, 0]
    return points


def turned(points, angle, scale, shift):
    c, s = np.cos(angle), np.sin(angle)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    in_plane = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return scale * points @ (about_y @ in_plane).T + shift


def test_curves_are_the_mouth_and_not_the_head(face):
    lip = sync_net.MOUTH.index(14)
    drop = np.abs(np.sin(np.arange(60) / 5.0)) * (np.arange(60) > 31)  # at rest in the median
    clip = np.repeat(face[None], 60, 0)
    clip[:, 14, 1] += 8.0 * drop  # a tenth of the eyes' distance, straight down
    still = sync_net.mouth_curves(clip)
    expected = np.zeros((60, sync_net.CURVES))
    expected[:, 2 * lip + 1] = 0.1 * sync_net.UNIT * drop
    np.testing.assert_allclose(still, expected, atol=1e-4)
    moving = np.stack(
        [turned(p, 0.01 * i, 1 + 0.005 * i, [i, -2 * i, 3]) for i, p in enumerate(clip)]
    )
    moving[7] = np.nan  # between two frames at rest
    np.testing.assert_allclose(sync_net.mouth_curves(moving), expected, atol=0.05)


@pytest.mark.parametrize("late", [-4, 0, 6])
def test_agreement_peaks_at_the_mouths_delay(late):
    rng = np.random.default_rng(1)
    sound = rng.normal(size=(100, 8))
    sound /= np.linalg.norm(sound, axis=1, keepdims=True)
    curve = sync_net.shifted_agreement(np.roll(sound, late, 0), sound)
    assert int(np.argmax(curve)) - sync_net.MAX_LAG_FRAMES == late
    assert curve.max() == pytest.approx(1.0, abs=0.1)  # rolled rows at the end are wrong
    mouth = np.roll(sound, late, 0)
    by_hand = np.mean([mouth[t + 2] @ sound[t] for t in range(98)])
    assert curve[sync_net.MAX_LAG_FRAMES + 2] == pytest.approx(by_hand)


def test_saved_weights_judge_the_same_and_padding_changes_nothing(tmp_path):
    cfg = sync_net.SyncNetConfig(width=16, depth=2, embed=8)
    shapes = np.zeros((1, 8, sync_net.CURVES)), np.zeros((1, 8, cfg.features.dim))
    params = sync_net.SyncNet(cfg).init(jax.random.key(0), *shapes)["params"]
    params = jax.tree.map(lambda x: np.asarray(x, np.float16).astype(np.float32), params)
    sync_net.save(tmp_path / "net.npz", cfg, params)
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(128, sync_net.CURVES)).astype(np.float32)
    samples = rng.normal(size=128 * SAMPLES_PER_FRAME).astype(np.float32) * 0.1
    ours = sync_net.SyncJudge(cfg, params).embed(curves, samples)
    kept = sync_net.load(tmp_path / "net.npz").embed(curves, samples)
    short = sync_net.SyncJudge(cfg, params).embed(curves[:100], samples)
    for a, b, c in zip(ours, kept, short, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1.0, atol=1e-3)
        np.testing.assert_allclose(a[:90], c[:90], atol=1e-5)


def test_too_little_is_not_judged():
    judge = sync_net.SyncJudge(sync_net.SyncNetConfig(), {})
    for landmarks in (np.ones((20, 478, 3)), np.full((80, 478, 3), np.nan)):
        found = judge.measure(landmarks, np.zeros(80 * SAMPLES_PER_FRAME))
        assert all(np.isnan(v) for v in found.values())


def test_the_judge_of_the_package_hears_what_it_was_trained_on():
    heard = sync_net.load().cfg.features
    assert heard.highpass_hz == 0.0 and heard.most_gain_db == 0.0
