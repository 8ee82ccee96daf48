from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from vasa_jax.core.errors import UserError
from vasa_jax.io.audio import read_audio, read_original, resample, to_mono

SECONDS = 0.6


def tone(rate: int, channels: int = 1, *, hz: float = 440.0, amplitude: float = 0.4) -> np.ndarray:
    """(S, C) float32 sine."""
    t = np.arange(int(rate * SECONDS)) / rate
    return np.repeat((amplitude * np.sin(2 * np.pi * hz * t))[:, None], channels, 1).astype("f")


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


def write_av(path: Path, codec: str, samples: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_m4a_is_read(tmp_path: Path) -> None:
    write_av(tmp_path / "a.m4a", "aac", tone(48000), 48000)
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
