"""Clips of speech with the motion that belongs to it: in shards on disk, and a corpus in memory.

A clip comes from any source: acted by rules, with exact truth for every frame (``data/acted.py``),
or real video read by the motion encoder (``data/videos.py``). Shards are ``*.npz`` of float16
motion and int16 sound, a few minutes each.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.places import typed
from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.motion.latents import MotionStats


class MotionClip(NamedTuple):
    """Speech and motion of T frames."""

    samples: np.ndarray  # (640 T,) float32, 16 kHz
    motion: np.ndarray  # (T, 54) float32
    controls: Controls  # labels, leading shape (T,); *_on = 0 where not known
    viseme: np.ndarray  # (T,) int8, -1 where not known
    trust: np.ndarray  # (54,) weight of each dimension in the loss: 0 where the source is blind
    speech: bool  # False: nobody speaks (such clips are never used as babble)


def write_shard(path: str | Path, clips: Sequence[MotionClip]) -> None:
    """Write clips to one ``.npz`` (temporary name, then renamed)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
    }
    for name in Controls._fields:
        values = [getattr(c.controls, name) for c in clips]
        table[f"controls_{name}"] = stack(values, np.float16)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **table)  # type: ignore[arg-type]  # names, not options
    temporary.rename(path)


def read_shard(path: str | Path) -> list[MotionClip]:
    """The clips of a shard."""
    with np.load(path) as table:
        data = {k: table[k] for k in table.files}
    out = []
    end = np.cumsum(data["length"])
    for i, stop in enumerate(end):
        start = stop - data["length"][i]
        controls = Controls(
            *(data[f"controls_{n}"][start:stop].astype(np.float32) for n in Controls._fields)
        )
        sound = data["samples"][start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        out.append(
            MotionClip(
                sound,
                data["motion"][start:stop].astype(np.float32),
                controls,
                data["viseme"][start:stop],
                data["trust"][i].astype(np.float32),
                bool(data["speech"][i]),
            )  # fmt: skip
        )
    return out


class MotionCorpus:
    """All clips of some folders in memory (sound stays int16)."""

    def __init__(self, folders: Sequence[str], shares: Sequence[float] = ()):
        self.clips: list[MotionClip] = []
        self.weights: list[float] = []
        self.sizes: list[int] = []  # clips of each folder
        for i, folder in enumerate(folders):
            path = typed(os.path.expandvars(folder))
            found = [c for shard in sorted(path.glob("*.npz")) for c in read_shard(shard)]
            if not found:
                raise UserError(f"no motion shards in {path}; make some with vasa_jax.data.motions")
            length = np.array([len(c.motion) for c in found], np.float64)
            share = shares[i] / length.sum() if shares else 1.0
            self.clips += found
            self.weights += list(length * share)
            self.sizes.append(len(found))
        self._settle()

    @classmethod
    def of(cls, clips: Sequence[MotionClip]) -> MotionCorpus:
        """A corpus of clips that are already in memory."""
        return cls(())._take(clips, [float(len(c.motion)) for c in clips], [len(clips)])

    def _take(self, clips, weights, sizes) -> MotionCorpus:
        self.clips, self.weights, self.sizes = list(clips), list(weights), list(sizes)
        self._settle()
        return self

    def split(self, share: float) -> tuple[MotionCorpus, MotionCorpus]:
        """Two corpora without a common recording: the rest, and the last ``share`` of each folder.

        The end, because variants of one recording lie side by side. At least one clip is held out;
        with a share of 0 both are the whole corpus.
        """
        if share <= 0:
            return self, self
        first = np.cumsum([0, *self.sizes[:-1]])
        last = np.zeros(len(self.clips), bool)
        for start, size in zip(first, self.sizes, strict=True):
            last[start + size - max(1, round(share * size)) : start + size] = True
        parts = []
        for chosen in (~last, last):
            at = np.flatnonzero(chosen)
            sizes = [int(chosen[a : a + n].sum()) for a, n in zip(first, self.sizes, strict=True)]
            parts.append(
                MotionCorpus(())._take(
                    [self.clips[i] for i in at], [self.weights[i] for i in at], sizes
                )
            )
        return parts[0], parts[1]

    def _settle(self) -> None:
        self.probability = np.array(self.weights) / max(np.sum(self.weights), 1e-9)
        self.speaking = [i for i, c in enumerate(self.clips) if c.speech]

    @property
    def frames(self) -> int:
        return sum(len(c.motion) for c in self.clips)

    def stats(self) -> MotionStats:
        """Mean and deviation of the motion as training will see it: weighted by the shares."""
        weight = self.probability / np.array([len(c.motion) for c in self.clips])
        mean = sum(
            w * c.motion.sum(0, dtype=np.float64) for w, c in zip(weight, self.clips, strict=True)
        )
        square = sum(
            w * np.square(c.motion - mean).sum(0) for w, c in zip(weight, self.clips, strict=True)
        )
        std = np.maximum(np.sqrt(square), 0.02)
        return MotionStats(np.asarray(mean, np.float32), np.asarray(std, np.float32))
