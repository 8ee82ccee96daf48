"""Files that are longer, or otherwise, than their header says."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.io.encoded_sound import by_av, by_soundfile, tone
from vasa_jax.core.errors import InputWarning, UserError
from vasa_jax.io import media
from vasa_jax.io.audio import read_original
from vasa_jax.io.channels import to_mono

RATE, SECONDS = 24000, 1.0
PITCHES = (440.0, 660.0, 880.0)
NO_TAGS = {"write_xing": "0", "id3v2_version": "0"}


def piece(hz: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    return tone(rate, SECONDS, hz, channels)


def read(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """The file's sound; fails when anything of it is said to be left out."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        return read_original(path)


def pitches_hz(samples: np.ndarray, rate: int, pieces: int) -> list[float]:
    """The strongest frequency in the middle of each of ``pieces`` equal parts."""
    found = []
    for part in np.array_split(to_mono(samples), pieces):
        middle = part[len(part) // 4 : -len(part) // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 17))
        found.append(float(spectrum.argmax() * rate / (1 << 17)))
    return found


def id3(size: int) -> bytes:
    """A tag as speech services and music programs put it in front; a picture of noise inside."""
    picture = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + length + picture


ENCODERS = {
    "mp3": lambda x: by_soundfile(x, RATE, "MP3"),
    "tagged.mp3": lambda x: id3(30_000) + by_av(x, RATE, "libmp3lame", "mp3") + b"TAG".ljust(128),
    "ogg": lambda x: by_soundfile(x, RATE, "OGG", "VORBIS"),
    "opus": lambda x: by_soundfile(x, RATE, "OGG", "OPUS"),
    "flac": lambda x: by_soundfile(x, RATE, "FLAC", "PCM_16"),
    "m4a": lambda x: by_av(x, RATE, "aac", "mp4"),
    "streamed.wav": lambda x: unsized(by_soundfile(x, RATE, "WAV", "PCM_16"), 0xFFFFFFFF),
}


def unsized(wav: bytes, size: int, riff_size: int | None = None) -> bytes:
    """A wav file whose header states other lengths."""
    at = wav.index(b"data") + 4
    wav = wav[:at] + struct.pack("<I", size) + wav[at + 4 :]
    return wav[:4] + struct.pack("<I", size if riff_size is None else riff_size) + wav[8:]


@pytest.mark.parametrize("suffix", ENCODERS)
def test_pieces_joined_end_to_end_are_all_read(tmp_path: Path, suffix: str) -> None:
    data = b"".join(ENCODERS[suffix](piece(hz)) for hz in PITCHES)
    samples, rate = read(tmp_path / f"a.{suffix}", data)
    assert len(samples) / rate == pytest.approx(len(PITCHES) * SECONDS, abs=0.005)
    np.testing.assert_allclose(pitches_hz(samples, rate, 3), PITCHES, atol=2)


@pytest.mark.parametrize("codec, format, rate", [("aac", "adts", RATE), ("libmp3lame", "mp3", RATE),
                                                 ("ac3", "ac3", 48000)])  # fmt: skip
def test_streams_without_a_mark_between_them_are_all_read(
    tmp_path: Path, codec: str, format: str, rate: int
) -> None:
    options = NO_TAGS if format == "mp3" else {}
    data = b"".join(by_av(piece(hz, rate), rate, codec, format, options=options) for hz in PITCHES)
    samples, rate = read(tmp_path / "a.bin", data)
    assert 3 * SECONDS <= len(samples) / rate < 3 * SECONDS + 0.3  # packets are filled up
    np.testing.assert_allclose(pitches_hz(samples, rate, 3), PITCHES, atol=2)


@pytest.mark.parametrize("name", ["adts", "mp3", "ogg", "flac", "opus"])
@pytest.mark.parametrize("order", [1, -1])
def test_rate_and_channels_may_change_inside(tmp_path: Path, name: str, order: int) -> None:
    def encoded(hz: float, rate: int, channels: int) -> bytes:
        sound = piece(hz, rate, channels)
        if name == "opus":
            return by_av(piece(hz, 48000, channels), 48000, "libopus", "ogg")
        if name == "adts":
            return by_av(sound, rate, "aac", "adts")
        return by_soundfile(sound, rate, name.upper())

    parts = [encoded(440, 24000, 1), encoded(660, 44100, 2)][::order]
    samples, rate = read(tmp_path / "a.bin", b"".join(parts))
    assert samples.shape[1] == 2 and rate == (48000 if name == "opus" else 44100)
    assert len(samples) / rate == pytest.approx(2 * SECONDS, abs=0.15)
    np.testing.assert_allclose(pitches_hz(samples, rate, 2), (440, 660)[::order], atol=2)
    for half in np.array_split(samples, 2):  # mono pieces are heard on both sides
        assert np.abs(half[len(half) // 4 : -len(half) // 4]).max(axis=0).min() > 0.3


def quiet_then_loud() -> bytes:
    """An mp3 of variable rate without an index: 2 s of near silence, then 1 s of noise."""
    noise = np.random.default_rng(0).standard_normal((3 * RATE, 1)).astype(np.float32)
    noise *= np.where(np.arange(3 * RATE) < 2 * RATE, 1e-4, 0.2)[:, None].astype(np.float32)
    vbr = {"flags": "+qscale", "global_quality": "236"}
    return by_av(noise, RATE, "libmp3lame", "mp3", codec_options=vbr, options=NO_TAGS)


def test_a_variable_rate_without_index_is_read_to_its_end(tmp_path: Path) -> None:
    data = quiet_then_loud()
    assert b"Xing" not in data and b"Info" not in data
    samples, rate = read(tmp_path / "a.mp3", data)
    assert len(samples) / rate == pytest.approx(3.0, abs=0.1)
    assert samples[-RATE // 2 : -RATE // 4].std() == pytest.approx(0.2, abs=0.05)


def test_an_index_that_lies_changes_nothing(tmp_path: Path) -> None:
    data = by_soundfile(piece(440), RATE, "MP3")
    at = max(data.find(b"Info"), data.find(b"Xing")) + 8
    data = data[:at] + struct.pack(">I", 4) + data[at + 4 :]  # frames
    samples, rate = read(tmp_path / "a.mp3", data)
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize("size, riff_size", [
    (0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 36), (0x80000000, 0), (0, None),
    (RATE // 2, None),  # half a second less than there is, which the file's own length contradicts
])  # fmt: skip
def test_a_wav_without_a_length_is_read_to_its_end(
    tmp_path: Path, size: int, riff_size: int | None
) -> None:
    wav = by_soundfile(piece(440), RATE, "WAV", "PCM_16")
    whole = len(wav) - 8
    data = unsized(wav, size, whole if riff_size is None else riff_size)
    samples, rate = read(tmp_path / "a.wav", data)
    assert len(samples) == RATE and rate == RATE
    np.testing.assert_allclose(samples, piece(440), atol=1e-4)


def test_what_lies_behind_the_end_of_a_wav_is_told_and_counted(tmp_path: Path) -> None:
    wav = by_soundfile(piece(440), RATE, "WAV", "PCM_16")
    (tmp_path / "a.wav").write_bytes(wav + wav)
    with pytest.warns(InputWarning, match=f"a.wav: {len(wav)} bytes were left .* 1.00 s"):
        samples, rate = read_original(tmp_path / "a.wav")
    assert len(samples) == RATE
    (tmp_path / "b.wav").write_bytes(wav[: len(wav) // 2])
    with pytest.warns(InputWarning, match=f"ends early: {len(wav) - len(wav) // 2} bytes"):
        assert len(read_original(tmp_path / "b.wav")[0]) == pytest.approx(RATE / 2, abs=30)


def test_chunks_and_padding_behind_the_sound_are_no_loss(tmp_path: Path) -> None:
    wav = by_soundfile(piece(440)[:-1], RATE, "WAV", "PCM_U8")
    wav = wav[: wav.index(b"data") + 8 + RATE - 1]  # of odd length
    for tail in (b"", b"\0", b"LIST\x04\x00\x00\x00INFO", b"\0LIST\x04\x00\x00\x00INFO", bytes(99)):
        assert len(read(tmp_path / "a.wav", wav + tail)[0]) == RATE - 1


def test_damage_inside_is_silent_and_told(tmp_path: Path) -> None:
    data = bytearray(by_av(tone(RATE, 4.0), RATE, "flac", "flac"))
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = bytes(len(data) // 8)
    (tmp_path / "a.flac").write_bytes(data)
    samples, rate = read_original(tmp_path / "a.flac")
    assert len(samples) / rate > 3.3  # before: what came before the damage
    assert np.abs(samples[-RATE // 2 :]).max() > 0.3


def test_later_pieces_that_are_damaged_are_counted(tmp_path: Path) -> None:
    first = by_soundfile(piece(440), RATE, "FLAC")
    (tmp_path / "a.flac").write_bytes(first + first[:50])
    with pytest.warns(InputWarning, match="50 bytes were left"):
        assert len(read_original(tmp_path / "a.flac")[0]) == RATE


@pytest.mark.parametrize("suffix", ["mp3", "streamed.wav", "m4a"])
def test_what_is_too_long_is_refused_while_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(media, "MAX_SECONDS", 2)
    with pytest.raises(UserError, match="longer than"):
        read(tmp_path / "a.bin", b"".join(ENCODERS[suffix](piece(hz)) for hz in PITCHES))
