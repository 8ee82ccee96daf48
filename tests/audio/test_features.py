import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio import conditioning, features
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
@pytest.mark.parametrize("gain, offset", [(1.0, 0.0), (0.01, 0.1)])
def test_stepping_gives_the_features_of_the_whole_signal(block, gain, offset):
    x = (gain * speechlike(42) + offset).astype(np.float32)
    whole = np.asarray(features.features(CFG, x[None]))
    state, parts = features.init_state(CFG, 1), []
    step = jax.jit(features.step, static_argnums=0)
    for i in range(0, 42, block):
        state, f = step(CFG, state, jnp.asarray(x[None, i * 640 : (i + block) * 640]))
        parts.append(np.asarray(f))
    # Beside the offset, 80 dB above it, the speech is rounded more.
    atol = 2e-3 if offset else 2e-5
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=atol)


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


def words(seconds, seed=0):
    """Noise in syllables of 0.2 s that swell to -26 dB, with pauses between them as long."""
    n = round(16_000 * seconds)
    swell = np.maximum(0.0, -np.sin(np.pi * np.arange(n) / 3200)) ** 2
    return 0.08 * swell * np.random.default_rng(seed).standard_normal(n)


def heard(x):
    return np.asarray(features.features(FeatureConfig(), x[None].astype(np.float32)))[0]


def rumble(n):
    noise = np.fft.rfft(np.random.default_rng(3).standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / 16_000)
    noise[(hertz < 4) | (hertz > 35)] = 0
    noise = np.fft.irfft(noise, n)
    return noise / noise.std()


T = np.arange(48_000) / 16_000
BELOW_SPEECH = {
    "offset 0.02": np.full_like(T, 0.02),
    "offset 0.3": np.full_like(T, 0.3),
    "offset -0.1": np.full_like(T, -0.1),
    "drift": 0.2 * np.sin(2 * np.pi * 0.5 * T),
    "hum 50": 0.1 * np.sin(2 * np.pi * 50 * T),
    "rumble": 0.1 * rumble(len(T)),
}


@pytest.mark.parametrize("name", BELOW_SPEECH)
def test_what_is_below_speech_is_not_heard(name):
    """Frames of speech: in pauses a hum is heard, as it should be, as noise."""
    x = words(3)
    clean, dirty = heard(x), heard(x + BELOW_SPEECH[name])
    speaking = np.isin(np.arange(len(clean)) % 10, (6, 7, 8))
    change = np.abs(clean - dirty)[speaking]
    # The lowest three of 64 bands (80 to 120 Hz) share what leaks; 0.1 is 3 dB.
    assert change[:, -1].max() < 0.02
    assert np.delete(change, [h * 64 + b for h in range(4) for b in range(3)], axis=1).mean() < 0.02


def test_an_offset_is_nothing_from_the_first_frame_on():
    x = words(1)
    np.testing.assert_allclose(heard(x + 0.3), heard(x), atol=0.02)


def test_the_high_pass_is_butterworth_s():
    from scipy.signal import butter, freqz_sos

    taps = conditioning.response(80.0)
    hertz = np.array([30.0, 50.0, 60.0, 80.0, 100.0, 200.0, 1000.0, 7000.0])
    sos = butter(conditioning.ORDER, 80.0, "highpass", fs=16_000, output="sos")
    expected = np.abs(freqz_sos(sos, hertz, fs=16_000)[1])
    got = np.abs(np.exp(-2j * np.pi * hertz[:, None] * np.arange(len(taps)) / 16_000) @ taps)
    np.testing.assert_allclose(got, expected, atol=5e-3)
    assert abs(taps.sum()) < 1e-12


@pytest.mark.parametrize("gain_db", [-20, -30, -40, -45])
def test_quiet_recordings_are_heard_like_others(gain_db):
    x = words(6)
    normal, quiet = heard(x), heard(x * 10 ** (gain_db / 20))
    late = np.arange(len(normal)) >= 50  # 2 s
    speaking = late & np.isin(np.arange(len(normal)) % 10, (6, 7, 8))
    assert np.abs(normal - quiet)[speaking, :-1].mean() < 0.1
    # Of the level itself no more is wanted than to be above the floor, where it is 0.
    assert quiet[100:, -1].min() > 0.1


def test_usual_recordings_keep_their_level():
    x = words(6)
    plain = FeatureConfig(most_gain_db=0.0)
    for gain in (0.3, 1.0, 4.0):
        sound = (gain * x)[None].astype(np.float32)
        np.testing.assert_array_equal(
            features.features(FeatureConfig(), sound), features.features(plain, sound)
        )


def test_noise_is_never_taken_for_quiet_speech():
    noise = 10 ** (-65 / 20) * np.random.default_rng(0).standard_normal(16_000 * 30)
    noise[: 16_000 * 2] *= np.arange(16_000 * 2) > 16_000  # digital silence first
    np.testing.assert_array_equal(
        heard(noise), features.features(FeatureConfig(most_gain_db=0.0), noise[None].astype("f"))[0]
    )


def test_after_quiet_speech_a_loud_voice_is_heard_at_once():
    x = words(6)
    x[: 16_000 * 3] *= 0.01
    normal, after = heard(words(6)), heard(x)
    assert np.abs(normal - after)[100:].mean() < 0.05  # one second later


def test_power_is_told_from_features():
    for x in (words(1) + 0.3, 0.1 * np.sin(2 * np.pi * 300 * T)):
        wanted = np.square(x - x.mean()).reshape(-1, 640).mean(1)
        loud = wanted > 1e-3  # the windows end with their frame: edges of syllables differ
        got = features.power_db(FeatureConfig(), heard(x))
        np.testing.assert_allclose(got[loud], 10 * np.log10(wanted[loud]), atol=2.5)
        assert got[wanted < 1e-9][2:].max(initial=-99) < -40


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
