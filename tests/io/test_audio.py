from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.io import encoded_sound
from tests.io.encoded_sound import by_av
from vasa_jax.core.errors import UserError
from vasa_jax.io.audio import read_audio, read_original
from vasa_jax.io.channels import to_mono, to_stereo
from vasa_jax.io.resampling import resample

SECONDS = 0.6


def tone(rate: int, channels: int = 1) -> np.ndarray:
    return encoded_sound.tone(rate, SECONDS, channels=channels)


def pitch_hz(samples: np.ndarray, rate: int) -> float:
    """Frequency of the strongest component."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n=1 << 17))
    return float(spectrum.argmax() * rate / (1 << 17))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate, channels), rate)
    speech = read_audio(path)
    assert speech.dtype == np.float32 and speech.ndim == 1
    assert abs(len(speech) - SECONDS * 16000) <= 1
    assert pitch_hz(speech, 16000) == pytest.approx(440, abs=1)
    assert np.abs(speech[1600:-1600]).max() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("suffix, subtype", [
    ("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"),
    ("wav", "DOUBLE"), ("flac", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
])  # fmt: skip
def test_every_common_format_and_depth_is_read(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(44100, 2), 44100, subtype=subtype)
    samples, rate = read_original(path)
    assert rate == 44100 and samples.shape[1] == 2 and samples.dtype == np.float32
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.06)
    assert pitch_hz(samples[:, 0], rate) == pytest.approx(440, abs=1)


def test_m4a_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(by_av(tone(48000), 48000, "aac", "mp4"))
    samples, rate = read_original(tmp_path / "a.m4a")
    assert rate == 48000 and pitch_hz(samples[:, 0], rate) == pytest.approx(440, abs=1)
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.03)


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(16000), 16000)
    (tmp_path / "a.flac").rename(tmp_path / "a.mp3")
    assert len(read_audio(tmp_path / "a.mp3")) == SECONDS * 16000


def test_nan_and_overdriven_samples_are_repaired(tmp_path: Path) -> None:
    samples = 3 * tone(16000)
    samples[100], samples[200] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    speech = read_audio(tmp_path / "a.wav")
    assert np.isfinite(speech).all() and np.abs(speech).max() <= 1.0
    assert speech[100] == 0 and np.abs(speech).max() > 0.99


def test_silence_is_no_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert not read_audio(tmp_path / "a.wav").any()


def test_opposite_channels_do_not_cancel() -> None:
    mono = tone(16000)
    assert np.abs(to_mono(np.concatenate([mono, -mono], 1))).max() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose(to_mono(np.concatenate([mono, 0 * mono], 1)), mono[:, 0] / 2)


def test_a_truncated_recording_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(44100), 44100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0.1 < len(read_audio(path)) / 16000 < SECONDS


@pytest.mark.parametrize("name, content", [
    ("empty.wav", b""),
    ("text.wav", b"this is no sound, it only says so\n" * 20),
    ("header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
    ("noise.mp3", bytes(range(256)) * 8),
    ("list.m4a", b"#EXTM3U\nhttp://localhost:1/x.mp3\n"),
])  # fmt: skip
def test_what_is_no_sound_is_a_user_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_audio(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_short_and_invalid_sound_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(UserError, match="folder"):
        read_audio(tmp_path)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    with pytest.raises(UserError, match="too short"):
        read_audio(tmp_path / "short.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(UserError, match="no sound"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


def test_resampling_keeps_the_clock() -> None:
    for rate in (7999, 11025, 44100):
        out = resample(np.zeros(rate * 3, np.float32), rate, 16000)
        assert len(out) == 48000


def level_db(samples: np.ndarray) -> float:
    """Mean square over all samples, of one loudspeaker or summed over two."""
    power = np.square(samples.reshape(len(samples), -1), dtype=np.float64).sum(axis=1)
    return float(10 * np.log10(power.mean()))


# Where the centre stands in files of 3 to 8 channels without names, which is its place in all of
# these layouts, too.
@pytest.mark.parametrize("layout, channels", [
    ("3.0", 3), ("5.0", 5), ("5.1", 6), ("5.1(side)", 6), ("6.1", 7), ("7.1", 8), ("7.1(wide)", 8),
    ("", 3), ("", 5), ("", 6), ("", 7), ("", 8),
])  # fmt: skip
def test_speech_in_the_centre_alone_loses_nothing(
    tmp_path: Path, layout: str, channels: int
) -> None:
    sound = np.zeros((round(16000 * SECONDS), channels), np.float32)
    sound[:, 2] = tone(16000)[:, 0]
    path = tmp_path / "a.wav"
    if layout:
        path.write_bytes(by_av(sound, 16000, "pcm_s16le", "wav", layout=layout))
    else:
        soundfile.write(path, sound, 16000)
    centre = level_db(sound[:, 2])
    assert level_db(read_audio(path)) == pytest.approx(centre, abs=3.1 if "wide" in layout else 0.1)
    samples, rate = read_original(path)
    track = to_stereo(samples)
    assert level_db(track) == pytest.approx(centre, abs=0.1)  # both sides together
    np.testing.assert_allclose(track[:, 0], track[:, 1], atol=1e-6)


def test_surround_becomes_what_two_loudspeakers_would_play() -> None:
    left, right, centre, bass, back_left, back_right = np.eye(6, dtype=np.float32)[:, None]
    for channel, sides in ((left, (1, 0)), (right, (0, 1)), (centre, (0.707, 0.707)),
                           (bass, (0, 0)), (back_left, (0.707, 0)), (back_right, (0, 0.707)),
                           ):  # fmt: skip
        np.testing.assert_allclose(to_stereo(channel), [sides], atol=1e-3)
    rumble = np.zeros((100, 6), np.float32)
    rumble[:, 2], rumble[:, 3] = 0.25, 0.5  # a voice beside the bass channel
    np.testing.assert_allclose(to_mono(rumble), 0.25)
    loud = to_stereo(np.ones((10, 6), np.float32))
    assert loud.max() == pytest.approx(1.0)
    pair = np.array([[0.25, -0.5]], np.float32)
    np.testing.assert_array_equal(to_stereo(pair), pair)


@pytest.mark.parametrize("channels", [10, 16])
def test_one_of_many_microphones_is_heard(tmp_path: Path, channels: int) -> None:
    sound = np.zeros((16000, channels), np.float32)
    sound[:, 7] = 0.4
    soundfile.write(tmp_path / "a.wav", sound, 16000)
    assert np.abs(read_audio(tmp_path / "a.wav")).max() == pytest.approx(0.4, abs=0.01)


def test_planes_of_eight_channels_do_not_crash(tmp_path: Path) -> None:
    """PyAV's own arrays of such frames read past the end of their planes."""
    sound = np.zeros((16000, 8), np.float32)
    sound[:, 1] = 0.4
    soundfile.write(tmp_path / "a.ogg", sound, 16000)
    samples, _ = read_original(tmp_path / "a.ogg")
    assert samples.shape == (16000, 8)
