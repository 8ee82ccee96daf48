"""Sound files in, as numpy arrays: the original for the finished video, 16 kHz mono for the nets.

PyAV decodes all that there is and counts it (``io/media.py``), piece by piece where files were
joined end to end (``io/containers.py``). soundfile reads what PyAV does not know. What is not used
of a file is told by an ``InputWarning``.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from vasa_jax.core.errors import InputWarning, UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.io.atomic import existing_file
from vasa_jax.io.channels import to_mono
from vasa_jax.io.containers import Piece, PieceFile, contents, mapped
from vasa_jax.io.media import MAX_SECONDS, Decoding, TooLongError, open_media, start_seconds
from vasa_jax.io.resampling import resample

Path = str | os.PathLike[str]

NOTABLE_S = 0.1  # damage that is worth a word
# Of these formats the last packet ends where the file does, but for a table of some bytes.
ENDS_WITH_SOUND = ("au", "caf", "w64")


def read_audio(path: Path) -> np.ndarray:
    """Speech for the nets: float32 (S,), mono, 16 kHz, in [-1, 1].

    Raises UserError when the file is missing, no sound, empty or shorter than a video frame.
    """
    return to_speech(*read_original(path))


def read_original(path: Path) -> tuple[np.ndarray, int]:
    """The sound as recorded: float32 (S, C) in [-1, 1] and its sample rate in Hz.

    Three to eight channels come in the order of ``channels.SPEAKERS``; other arrangements as
    stereo. Of files joined end to end, or whose rate or channels change, all is read, at the
    highest rate. Samples that are NaN or infinite become 0; floating files beyond full scale are
    turned down. Warns (``InputWarning``) of bytes that are left, missing or damaged. Raises
    UserError as ``read_audio`` does.
    """
    file = existing_file(path, "sound")
    samples, rate = _read_pieces(file)
    return clean(samples, rate, file), rate


def to_speech(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S, C) at ``rate`` Hz as the nets' input: float32 (S',), mono, 16 kHz."""
    return resample(to_mono(samples), rate, SAMPLE_RATE_HZ)


def shifted(samples_S: np.ndarray, later: int) -> np.ndarray:
    """Sound that begins ``later`` samples later, after silence, or without its first ``-later``."""
    if later < 0:
        return samples_S[-later:]
    return np.concatenate([np.zeros(later, samples_S.dtype), samples_S])


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

    With ``align_to_video`` sample 0 is the moment of the first picture. Damage is silent. Raises
    UserError when the file can't be read or has no sound.
    """
    decoding = Decoding(path)
    with open_media(path, "sound") as container:
        decoding.add(container)
        samples, rate = decoding.joined()
        if align_to_video and container.streams.video:
            first_picture = start_seconds(container.streams.video[0])
            shift = round((decoding.start - first_picture) * rate)
            samples = np.pad(samples, [(shift, 0), (0, 0)]) if shift > 0 else samples[-shift:]
    _tell_damage(decoding)
    return samples, rate


def _read_pieces(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """All sound of a file, also of others joined to its end."""
    decoding = Decoding(path)
    with mapped(path) as data:
        found = contents(data)
        whole = found.pieces == (Piece(0, len(data)),)
        left = found.left
        for number, piece in enumerate(found.pieces):
            source = None if whole else PieceFile(data, piece)
            kind = None if whole else found.format
            try:
                with open_media(path, "sound", source=source, format=kind) as container:
                    decoding.add(container)
                    left += _unread(container, decoding)
            except TooLongError:
                raise
            except UserError:
                if not decoding.seconds and number + 1 == len(found.pieces):
                    return _read_soundfile(path)
                left += piece.end - piece.start
    if left:
        _tell(f"{path}: {left} bytes were left behind the {decoding.seconds:.2f} s of sound that "
              "are used; if other sounds were joined to it, export them as one")  # fmt: skip
    if found.missing:
        _tell(f"{path} ends early: {found.missing} bytes are missing that its header promises; "
              f"{decoding.seconds:.2f} s are used")  # fmt: skip
    _tell_damage(decoding)
    return decoding.joined()


def _unread(container: Any, decoding: Decoding) -> int:
    """Bytes that the decoder did not come to."""
    behind = max(0, container.size - decoding.position)
    table = max(1 << 13, container.size // 50)
    ends = container.format.name in ENDS_WITH_SOUND and decoding.position and behind > table
    return behind if decoding.broke_off or ends else 0


def _tell_damage(decoding: Decoding) -> None:
    if decoding.damaged > NOTABLE_S:
        _tell(f"{decoding.path}: {decoding.damaged:.2f} s are damaged and silent in the result")


def _tell(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=5)


def _read_soundfile(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """What PyAV does not know, or stumbles over."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            if file.frames > MAX_SECONDS * max(file.samplerate, 1):
                raise UserError(f"{path} is longer than {MAX_SECONDS // 3600} hours; cut it first")
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"can't read {path} as sound: it is damaged, protected or of no known "
                        f"format ({type(error).__name__})") from error  # fmt: skip
