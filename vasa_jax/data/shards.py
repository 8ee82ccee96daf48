"""Clips of speech with the motion that belongs to it, as records of kind "motion".

A clip comes from any source: acted by rules, with exact truth for every frame (``synth/acted.py``),
or real video read by a face's own encoder (``prepare/encode.py``, ``prepare/videos.py``). On disk
they are shards of records (``records.py``), motion in half precision and sound as int16, read clip
by clip: what is kept in memory is a few bytes per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vasa_jax.core.config import from_json, to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, SpaceConfig
from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.data import records
from vasa_jax.data.records import Record, Records


class MotionClip(NamedTuple):
    """Speech and motion of T frames."""

    samples: np.ndarray  # (640 T,) float32, 16 kHz
    motion: np.ndarray  # (T, M) float32
    controls: Controls  # labels, leading shape (T,); *_on = 0 where not known
    viseme: np.ndarray  # (T,) int8, -1 where not known
    trust: np.ndarray  # (M,) weight of each dimension in the loss: 0 where the source is blind
    speech: bool  # False: nobody speaks (such clips are never used as babble)
    person: str = ""  # who it is; empty where not known: then nobody else's clip is of them


def to_record(clip: MotionClip, name: str, space: SpaceConfig = ARKIT.cfg) -> Record:
    """A clip as a record; ``name`` is its id, ``space`` what its motion means.

    Raises ValueError for sound and motion of unequal length, or motion that float16 does not hold.
    """
    if len(clip.samples) != len(clip.motion) * SAMPLES_PER_FRAME:
        raise ValueError("a clip's sound and motion must be equally long")
    with np.errstate(over="ignore"):
        motion = np.asarray(clip.motion).astype(np.float16)
    if not np.isfinite(motion).all():  # a code has no natural size
        raise ValueError("motion that is not finite, or beyond what float16 holds (65504)")
    samples = np.asarray(clip.samples)
    if samples.dtype != np.int16:
        samples = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    controls = {
        f"controls_{n}": np.asarray(getattr(clip.controls, n)).astype(np.float16)
        for n in Controls._fields
    }
    return Record(
        "motion",
        {"id": name, "person": clip.person, "speech": bool(clip.speech), "space": to_json(space)},
        {"samples": samples, "motion": motion, "viseme": np.asarray(clip.viseme).astype(np.int8),
         "trust": np.asarray(clip.trust).astype(np.float16), **controls},
    )  # fmt: skip


def from_record(record: Record) -> MotionClip:
    """The clip of a record of kind "motion"; sound stays int16. UserError for another kind."""
    if record.kind != "motion":
        raise UserError(
            f"a record of kind {record.kind!r} where stage 2 needs motion: vasa-jax encode makes "
            "it of clips"
        )
    arrays = record.arrays
    tracks = (arrays[f"controls_{n}"].astype(np.float32) for n in Controls._fields)
    return MotionClip(
        arrays["samples"], arrays["motion"].astype(np.float32), Controls(*tracks),
        arrays["viseme"], arrays["trust"].astype(np.float32), bool(record.meta["speech"]),
        str(record.meta["person"]),
    )  # fmt: skip


def write_shard(
    path: str | Path, clips: Sequence[MotionClip], space: SpaceConfig = ARKIT.cfg
) -> None:
    """Write clips to one shard, whole or not at all; its name ends in ``.array_record``.

    UserError when it can't be written.
    """
    path = Path(path)
    made = [records.pack(to_record(c, f"{path.stem}/{i:06d}", space)) for i, c in enumerate(clips)]
    records.write_shard(path, made)


def read_shard(path: str | Path) -> list[MotionClip]:
    """The clips of a shard, all in memory."""
    shard = Shard(path)
    return [shard.clip(i) for i in range(len(shard.length))]


def motion_shards(folder: Path) -> list[Path]:
    """Finished shards of a folder, in order.

    Raises UserError where there is no such folder, or only files as earlier versions wrote them.
    """
    found = records.shards(folder)
    if not found and any(folder.glob("*.npz")):
        raise UserError(
            f"{folder} holds motion as earlier versions kept it; make it again with "
            "python -m vasa_jax.prepare.shards"
        )
    return found


class Shard:
    """One file of clips; reads what is asked for, and can be copied to other processes for free.

    Raises UserError for a file that is no shard, or not a whole one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._records = Records([self.path])
        self.length, self.speech = self._records.frames, self._records.speech
        self.people = [str(name) for name in self._records.people]
        known = self._records[0].meta.get("space", {}) if len(self._records) else {}
        self.space = from_json(SpaceConfig, known)

    def clip(self, number: int) -> MotionClip:
        """All of one clip; sound stays int16."""
        return from_record(self._records[number])

    def samples(self, number: int) -> np.ndarray:
        """The sound of one clip, int16 (640 T,)."""
        return self._records[number].arrays["samples"]

    def motion(self) -> np.ndarray:
        """The motion of all clips, one after the other, float16 (sum of T, M)."""
        parts = [self._records[i].arrays["motion"] for i in range(len(self._records))]
        return np.concatenate(parts)
