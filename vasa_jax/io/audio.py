"""Sound files in, as numpy arrays: the original for the finished video, 16 kHz mono for the nets.

soundfile reads wav, flac, ogg and mp3 exactly; PyAV reads the rest (m4a, aac, webm, the sound of a
video) and what soundfile gives up on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.io.atomic import existing_file, media_address

Path = str | os.PathLike[str]

MAX_SECONDS = 4 * 3600  # float32 stereo at 48 kHz: 5.5 GB; beyond that it is a mistake


def read_audio(path: Path) -> np.ndarray:
    """Speech for the nets: float32 (S,), mono, 16 kHz, in [-1, 1].

    Raises UserError when the file is missing, no sound, empty or shorter than a video frame.
    """
    return to_speech(*read_original(path))


def read_original(path: Path) -> tuple[np.ndarray, int]:
    """The sound as recorded: float32 (S, C) in [-1, 1] and its sample rate in Hz.

    Samples that are NaN or infinite become 0; floating files beyond full scale are turned down.
    Raises UserError as ``read_audio`` does.
    """
    file = existing_file(path, "sound")
    try:
        samples, rate = _read_soundfile(file)
    except _CannotRead:
        samples, rate = decode(file)
    return clean(samples, rate, file), rate


def to_speech(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S, C) at ``rate`` Hz as the nets' input: float32 (S',), mono, 16 kHz."""
    return resample(to_mono(samples), rate, SAMPLE_RATE_HZ)


def to_mono(samples: np.ndarray) -> np.ndarray:
    """(S, C) -> (S,): the channels' mean, or the loudest one where they cancel each other."""
    if samples.ndim == 1:
        return samples.astype(np.float32, copy=False)
    mono = samples.mean(axis=1, dtype=np.float32)
    power = np.square(samples).mean(axis=0, dtype=np.float64)
    # Wired in opposite phase, the mean of a stereo pair is silence.
    if np.square(mono).mean(dtype=np.float64) < 1e-3 * power.max():
        return np.ascontiguousarray(samples[:, int(power.argmax())])
    return mono


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(S,) or (S, C) at ``rate`` Hz as float32 at ``new_rate`` Hz, ceil(S * new / old) long."""
    if rate == new_rate:
        return np.ascontiguousarray(samples, np.float32)
    import soxr

    out = soxr.resample(np.ascontiguousarray(samples, np.float32), rate, new_rate, quality="HQ")
    length = -(-samples.shape[0] * new_rate // rate)
    # soxr may be a sample short or long, depending on the ratio; the clock must not depend on it.
    out = out[:length]
    if out.shape[0] < length:
        out = np.pad(out, [(0, length - out.shape[0])] + [(0, 0)] * (out.ndim - 1))
    return np.clip(out, -1.0, 1.0)


def clean(samples: np.ndarray, rate: int, source: Path) -> np.ndarray:
    """``samples`` (S, C) made finite and within [-1, 1]; UserError when nothing is left of them."""
    if samples.size == 0:
        raise UserError(f"{source} holds no sound; record or export it again")
    if rate <= 0 or samples.shape[0] * FPS < rate:
        raise UserError(f"{source} is too short ({samples.shape[0]} samples); "
                        f"give at least {1000 // FPS} ms of speech")  # fmt: skip
    finite = np.isfinite(samples)
    if not finite.all():
        if not finite.any():
            raise UserError(f"{source} holds no valid samples (all are NaN); export it again")
        samples = np.where(finite, samples, 0.0)
    samples = samples.astype(np.float32, copy=False)
    peak = max(float(samples.max()), -float(samples.min()))
    return samples / peak if peak > 1.0 else samples


def decode(path: Path, *, align_to_video: bool = False) -> tuple[np.ndarray, int]:
    """The first sound stream of any media file by PyAV: float32 (S, C) and its rate.

    With ``align_to_video`` sample 0 is the moment of the first picture. What comes before damage is
    kept. Raises UserError when the file can't be read or has no sound.
    """
    with open_media(path, "sound") as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no sound track")
        stream = container.streams.audio[0]
        blocks, rate, start = _decode_blocks(container, stream, path)
        if not blocks:
            raise UserError(f"can't read the sound of {path}; is it a damaged or protected file?")
        samples = np.concatenate(blocks)
        if align_to_video and container.streams.video:
            first_picture = _start_seconds(container.streams.video[0])
            shift = round((start - first_picture) * rate)
            samples = np.pad(samples, [(shift, 0), (0, 0)]) if shift > 0 else samples[-shift:]
    return samples, rate


def _decode_blocks(
    container: Any, stream: Any, path: Path
) -> tuple[list[np.ndarray], int, Fraction]:
    import av

    resampler, rate, start, total = None, 0, Fraction(0), 0
    blocks: list[np.ndarray] = []
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            break
        except av.EOFError:
            break
        except av.FFmpegError:
            if total:  # keep what came before the damage
                break
            raise
        for frame in frames:
            if resampler is None:
                rate = frame.sample_rate
                start = frame.pts * frame.time_base if frame.pts is not None else Fraction(0)
                resampler = av.AudioResampler(format="flt", layout=frame.layout.name, rate=rate)
            for part in resampler.resample(frame):
                block = part.to_ndarray().reshape(-1, len(part.layout.channels))
                blocks.append(block)
                total += len(block)
        if rate and total > MAX_SECONDS * rate:
            raise UserError(f"{path} is longer than {MAX_SECONDS // 3600} hours; cut it first")
    return blocks, rate, start


def _start_seconds(stream: Any) -> Fraction:
    return stream.start_time * stream.time_base if stream.start_time is not None else Fraction(0)


@contextlib.contextmanager
def open_media(path: Path, what: str) -> Iterator[Any]:
    """A PyAV container for reading; its errors, also those raised inside, become UserError."""
    import av

    file = existing_file(path, what)
    try:
        # Only local files: a playlist must not make us open a connection or other paths.
        with av.open(media_address(file), options={"protocol_whitelist": "file"}) as container:
            yield container
    except (av.FFmpegError, UnicodeError) as error:
        raise UserError(f"can't read {file} as {what}: it is damaged or of no known format "
                        f"({type(error).__name__})") from error  # fmt: skip


class _CannotRead(Exception):
    """soundfile does not know the format, or stumbles over it."""


def _read_soundfile(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            if file.samplerate > 0 and file.frames > MAX_SECONDS * file.samplerate:
                raise _CannotRead  # a header may lie; counting while decoding does not
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise _CannotRead from error
