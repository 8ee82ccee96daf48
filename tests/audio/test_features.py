import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio import features
from vasa_jax.audio.encoder import AudioEncoder, EncoderConfig
from vasa_jax.audio.features import FeatureConfig

CFG = FeatureConfig(num_mels=24, level_frames=20)


def speechlike(frames, seed=0):
    rng = np.random.default_rng(seed)
    n = frames * 640
    envelope = np.interp(
        np.arange(n), np.arange(0, n, 800), rng.uniform(0, 1, len(range(0, n, 800)))
    )
    return (rng.standard_normal(n) * envelope * 0.1).astype(np.float32)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_stepping_gives_the_features_of_the_whole_signal(block):
    x = speechlike(42)
    whole = np.asarray(features.features(CFG, x[None]))
    state, parts = features.init_state(CFG, 1), []
    for i in range(0, 42, block):
        state, f = features.step(CFG, state, jnp.asarray(x[None, i * 640 : (i + block) * 640]))
        parts.append(np.asarray(f))
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=2e-5)


def test_features_do_not_look_ahead():
    x = speechlike(20)
    changed = x.copy()
    changed[10 * 640 :] = 0.3
    a, b = (np.asarray(features.features(CFG, v[None])) for v in (x, changed))
    assert CFG.lookahead_frames == 0
    np.testing.assert_array_equal(a[:, :10], b[:, :10])
    assert np.abs(a[:, 10:] - b[:, 10:]).max() > 0.1


def test_level_of_the_recording_does_not_matter():
    x = speechlike(60)
    a, b = (np.asarray(features.features(CFG, g * x[None]))[..., :-1] for g in (1.0, 0.25))
    # Away from the floor only the floor's own share (-55 dB) differs.
    assert np.abs(a - b).mean() < 0.02


def test_silence_stays_silent():
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(6400).astype(np.float32)
    f = np.asarray(features.features(CFG, quiet[None]))[..., :-1]
    loud = np.asarray(features.features(CFG, speechlike(10)[None]))[..., :-1]
    assert f.mean() < loud.mean() - 0.4


def test_bands_follow_the_frequency_of_a_tone():
    t = np.arange(16_000) / 16_000
    peaks = []
    for hz in (200, 800, 3000):
        f = np.asarray(features.features(CFG, np.sin(2 * np.pi * hz * t)[None].astype(np.float32)))
        peaks.append(int(f[0, 10, : CFG.num_mels].argmax()))
    assert peaks == sorted(peaks) and len(set(peaks)) == 3


def test_part_frames_are_completed():
    assert features.features(CFG, jnp.zeros((1, 1000))).shape == (1, 2, CFG.dim)
    assert features.num_frames(1000) == 2


ENC = EncoderConfig(width=16, hidden=24, num_blocks=2)


def test_encoder_looks_ahead_as_far_as_it_declares():
    net = AudioEncoder(ENC)
    x = jax.random.normal(jax.random.key(0), (1, 30, 8))
    valid = jnp.ones((1, 30), bool)
    params = net.init(jax.random.key(1), x, valid)

    def at(frame):
        grad = jax.grad(lambda x: jnp.abs(net.apply(params, x, valid)[0, frame]).sum())(x)
        return np.flatnonzero(np.abs(np.asarray(grad[0])).sum(-1))

    seen = at(15)
    assert seen.max() == 15 + ENC.lookahead_frames
    assert ENC.lookahead_frames <= 3


def test_encoder_never_reads_what_is_not_valid():
    net = AudioEncoder(ENC)
    x = jax.random.normal(jax.random.key(0), (2, 12, 8))
    valid = jnp.arange(12)[None] < jnp.array([[12], [7]])
    params = net.init(jax.random.key(1), x, valid)
    poisoned = x.at[1, 7:].set(jnp.nan)
    a, b = net.apply(params, x, valid), net.apply(params, poisoned, valid)
    np.testing.assert_array_equal(a, b)
