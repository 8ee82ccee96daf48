"""Clips of speech with the motion that belongs to it, on disk: shards, read clip by clip.

A clip comes from any source: acted by rules, with exact truth for every frame (``synth/acted.py``),
or real video read by the motion encoder (``prepare/videos.py``). Shards are ``*.npz`` of float16
motion and int16 sound, a few minutes each. They are not compressed, so that a clip can be read from
the middle of one: what is kept in memory is a few bytes per clip.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vasa_jax.core.config import from_json, to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, SpaceConfig
from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.io.atomic import replacing


class MotionClip(NamedTuple):
    """Speech and motion of T frames."""

    samples: np.ndarray  # (640 T,) float32, 16 kHz
    motion: np.ndarray  # (T, M) float32
    controls: Controls  # labels, leading shape (T,); *_on = 0 where not known
    viseme: np.ndarray  # (T,) int8, -1 where not known
    trust: np.ndarray  # (M,) weight of each dimension in the loss: 0 where the source is blind
    speech: bool  # False: nobody speaks (such clips are never used as babble)
    person: str = ""  # who it is; empty where not known: then nobody else's clip is of them


def write_shard(
    path: str | Path, clips: Sequence[MotionClip], space: SpaceConfig = ARKIT.cfg
) -> None:
    """Write clips to one ``.npz``, whole or not at all; ``space`` is what their motion means.

    UserError when it can't be written.
    """
    path = Path(path)
    length = np.array([len(c.motion) for c in clips], np.int32)

    def stack(values: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
        return np.concatenate([np.asarray(v) for v in values]).astype(dtype)

    for c in clips:
        if len(c.samples) != len(c.motion) * SAMPLES_PER_FRAME:
            raise ValueError("a clip's sound and motion must be equally long")
    table: dict[str, np.ndarray] = {
        "length": length,
        "samples": stack([np.clip(c.samples, -1, 1) * 32767 for c in clips], np.int16),
        "motion": stack([c.motion for c in clips], np.float16),
        "viseme": stack([c.viseme for c in clips], np.int8),
        "trust": np.stack([c.trust for c in clips]).astype(np.float16),
        "speech": np.array([c.speech for c in clips]),
        "person": np.array([c.person for c in clips], np.str_),
        "space": np.array([json.dumps(to_json(space))]),
    }
    if not np.isfinite(table["motion"]).all():  # a code has no natural size
        raise ValueError("motion that is not finite, or beyond what float16 holds (65504)")
    for name in Controls._fields:
        values = [getattr(c.controls, name) for c in clips]
        table[f"controls_{name}"] = stack(values, np.float16)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **table)  # type: ignore[arg-type]  # names, not options


def read_shard(path: str | Path) -> list[MotionClip]:
    """The clips of a shard, all in memory."""
    shard = Shard(path)
    return [shard.clip(i) for i in range(len(shard.length))]


class _Stored(NamedTuple):
    """Where an array lies in a file."""

    offset: int  # bytes
    dtype: np.dtype
    shape: tuple[int, ...]


class Shard:
    """One file of clips; reads what is asked for, and can be copied to other processes for free.

    Raises UserError for a file that is no shard, or not a whole one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._arrays = _arrays(self.path)
            with self.path.open("rb") as file:
                self.length: np.ndarray = self._all(file, "length")
                self.speech: np.ndarray = self._all(file, "speech")
                self._trust = self._all(file, "trust").astype(np.float32)
                known = "person" in self._arrays  # shards of earlier versions do not say
                people = self._all(file, "person") if known else [""] * len(self.length)
                # Nor did they know any space but the named weights.
                told = str(self._all(file, "space")[0]) if "space" in self._arrays else "{}"
            self.space = from_json(SpaceConfig, json.loads(told))
            self.people = [str(name) for name in people]
            tracks = [f"controls_{name}" for name in Controls._fields]
            missing = {"samples", "motion", "viseme", *tracks} - set(self._arrays)
            if missing:
                raise KeyError(*missing)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path} is no whole motion shard; delete it and make it again"
            ) from error
        self._end = np.cumsum(self.length)

    def clip(self, number: int) -> MotionClip:
        """All of one clip; sound stays int16."""
        with self.path.open("rb") as file:
            tracks = (self._part(file, f"controls_{n}", number) for n in Controls._fields)
            return MotionClip(
                self._part(file, "samples", number, SAMPLES_PER_FRAME),
                self._part(file, "motion", number).astype(np.float32),
                Controls(*(x.astype(np.float32) for x in tracks)),
                self._part(file, "viseme", number),
                self._trust[number],
                bool(self.speech[number]),
                self.people[number],
            )

    def samples(self, number: int) -> np.ndarray:
        """The sound of one clip, int16 (640 T,)."""
        with self.path.open("rb") as file:
            return self._part(file, "samples", number, SAMPLES_PER_FRAME)

    def motion(self) -> np.ndarray:
        """The motion of all clips, one after the other, float16 (sum of T, M)."""
        with self.path.open("rb") as file:
            return self._all(file, "motion")

    def _part(self, file: BinaryIO, name: str, number: int, per_frame: int = 1) -> np.ndarray:
        stop = int(self._end[number])
        start = stop - int(self.length[number])
        return self._rows(file, name, start * per_frame, stop * per_frame)

    def _all(self, file: BinaryIO, name: str) -> np.ndarray:
        return self._rows(file, name, 0, self._arrays[name].shape[0])

    def _rows(self, file: BinaryIO, name: str, start: int, stop: int) -> np.ndarray:
        where = self._arrays[name]
        if isinstance(where, np.ndarray):
            return where[start:stop]
        row = int(np.prod(where.shape[1:], dtype=np.int64))
        file.seek(where.offset + start * row * where.dtype.itemsize)
        found = np.fromfile(file, where.dtype, (stop - start) * row)
        if len(found) != (stop - start) * row:
            raise UserError(f"{self.path} ends too early; delete it and make it again")
        return found.reshape(stop - start, *where.shape[1:])


def _arrays(path: Path) -> dict[str, _Stored | np.ndarray]:
    """The arrays of an .npz: where they lie, or themselves where the file is compressed."""
    found: dict[str, _Stored | np.ndarray] = {}
    with zipfile.ZipFile(path) as pack, path.open("rb") as file:
        for member in pack.infolist():
            name = member.filename.removesuffix(".npy")
            if member.compress_type != zipfile.ZIP_STORED:
                with pack.open(member) as packed:
                    found[name] = np.lib.format.read_array(packed)
                continue
            # The name and what follows it are as long as the member's own header says.
            file.seek(member.header_offset + 26)
            name_length, extra = np.frombuffer(file.read(4), "<u2")
            file.seek(member.header_offset + 30 + int(name_length) + int(extra))
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            if fortran or dtype.hasobject:
                raise ValueError(f"{name} is not stored row by row")
            found[name] = _Stored(file.tell(), dtype, shape)
    return found
