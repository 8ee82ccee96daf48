"""The clips that stage 2 is trained on: those of some folders of shards, left where they are.

Only an index is in memory, and workers read the same files; what was read lately is in the system's
cache of files, once for all of them.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace, SpaceConfig, alike, space_of
from vasa_jax.data.folders import data_folder
from vasa_jax.data.shards import MotionClip, Shard, motion_shards
from vasa_jax.motion.latents import MotionStats

READOUT = "readout.json"


class Clips(Sequence[MotionClip]):
    """Clips by number, each read when it is asked for; clips in memory work the same.

    Attributes ``length`` (N,) in frames, ``speech`` (N,) bool, ``people``, N names, and ``space``,
    the motion space of all; UserError where they are of several.
    """

    def __init__(self, sources: Sequence[Shard | MotionClip]):
        self._sources = list(sources)
        rows = [row for i, source in enumerate(self._sources) for row in _rows(i, source)]
        at, within, length, speech, people = zip(*rows, strict=True) if rows else ((),) * 5
        self._at, self._within = np.array(at, np.int32), np.array(within, np.int32)
        self.length, self.speech = np.array(length, np.int64), np.array(speech, bool)
        self.people = np.array(people, np.str_)
        self.space = _common_space(self._sources)

    def chosen(self, numbers: np.ndarray) -> Clips:
        """Some of them, a mask or numbers."""
        some = copy.copy(self)
        for name in ("_at", "_within", "length", "speech", "people"):
            setattr(some, name, getattr(self, name)[numbers])
        return some

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]  # an int, or a slice of them
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        source = self._sources[self._at[number]]
        return source if isinstance(source, MotionClip) else source.clip(self._within[number])

    def samples(self, number: int) -> np.ndarray:
        """The sound of one alone."""
        source = self._sources[self._at[number]]
        is_clip = isinstance(source, MotionClip)
        return source.samples if is_clip else source.samples(self._within[number])

    def motions(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number and motion of each in float64, file by file."""
        for i, source in enumerate(self._sources):
            mine = np.flatnonzero(self._at == i)
            if not len(mine):
                continue
            if isinstance(source, MotionClip):
                yield int(mine[0]), np.asarray(source.motion, np.float64)
                continue
            parts = np.split(source.motion(), np.cumsum(source.length)[:-1])
            for number in mine:
                yield int(number), parts[self._within[number]].astype(np.float64)


def _rows(at: int, source: Shard | MotionClip) -> Iterator[tuple[int, int, int, bool, str]]:
    """Source, number in it, frames, speech and person of each clip."""
    if isinstance(source, MotionClip):
        yield at, 0, len(source.motion), source.speech, source.person
        return
    columns = (source.length, source.speech, source.people)
    for number, (length, speech, person) in enumerate(zip(*columns, strict=True)):
        yield at, number, int(length), bool(speech), person


def _common_space(sources: Sequence[Shard | MotionClip]) -> MotionSpace:
    """Clips in memory are of named weights: other codes come from files that say whose they are."""
    known = [x.space if isinstance(x, Shard) else SpaceConfig() for x in sources]
    for other in known[1:]:
        if not alike(known[0], other):
            raise UserError(
                "the motion shards are of several spaces, which no model can learn together: "
                f"{known[0].describe()} and {other.describe()}"
            )
    return space_of(known[0] if known else SpaceConfig())


class MotionCorpus:
    """All clips of some folders, and how often each is drawn."""

    def __init__(self, folders: Sequence[str], shares: Sequence[float] = ()):
        """Raises UserError for a folder without shards: the other shares would change."""
        if shares and len(shares) != len(folders):
            raise UserError(
                f"data.shares has {len(shares)} numbers for {len(folders)} of data.folders"
            )
        shards: list[Shard] = []
        sizes = []
        self.readout: dict[str, Any] | None = None  # of a latent space (``motion/readout.py``)
        for folder in folders:
            path = data_folder(folder, "data.folders")
            found = [Shard(file) for file in motion_shards(path)] if path.is_dir() else []
            if not found:
                raise UserError(
                    f"no motion shards in {path}; make some with python -m vasa_jax.prepare.shards"
                )
            shards += found
            sizes.append(sum(len(shard.length) for shard in found))
            self.readout = self.readout or _readout(path)
        self._take(Clips(shards), sizes, shares)

    @classmethod
    def of(cls, clips: Sequence[MotionClip]) -> MotionCorpus:
        """A corpus of clips that are already in memory."""
        corpus = cls(())
        corpus._take(Clips(clips), [len(clips)], ())
        return corpus

    def _take(self, clips: Clips, sizes: Sequence[int], shares: Sequence[float]) -> None:
        self.clips, self.sizes = clips, list(sizes)  # sizes: clips of each folder
        weights = clips.length.astype(np.float64)
        if shares:
            for (a, b), share in zip(self._folders(), shares, strict=True):
                weights[a:b] *= share / max(weights[a:b].sum(), 1e-9)
        self._settle(weights)

    def _folders(self) -> list[tuple[int, int]]:
        """First and last clip, exclusive, of each folder."""
        ends = np.cumsum(self.sizes).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _settle(self, weights: np.ndarray) -> None:
        self.weights = weights
        self.probability = weights / max(weights.sum(), 1e-9)
        self.speaking = np.flatnonzero(self.clips.speech)

    def split(self, share: float) -> tuple[MotionCorpus, MotionCorpus]:
        """Two corpora without a common person: the rest, and the last ``share`` of each folder.

        Clips whose person is not known count as of different people; the end is taken because
        variants of one recording lie side by side. At least one person of each folder is held out,
        if need be the one with the fewest clips, and a person who is held out of one folder is
        held out of all. Where a folder has one person, or almost, its last clips are held out:
        else nothing would be left to learn. With a share of 0 both are the whole corpus.
        """
        if share <= 0:
            return self, self
        last = np.zeros(len(self.clips), bool)
        people, folders = self.clips.people, self._folders()
        needed = {name for a, b in folders for name in _indispensable(people[a:b])}
        for a, b in folders:
            last[a:b] = _held_out(people[a:b], share, needed)
        elsewhere = {str(name) for name in people[last] if name} - needed
        last |= np.isin(people, list(elsewhere))
        return self._part(~last), self._part(last)

    def _part(self, chosen: np.ndarray) -> MotionCorpus:
        part = MotionCorpus(())
        part.clips = self.clips.chosen(chosen)
        part.sizes = [int(chosen[a:b].sum()) for a, b in self._folders()]
        part._settle(self.weights[chosen])
        return part

    @property
    def frames(self) -> int:
        return int(self.clips.length.sum())

    @property
    def space(self) -> SpaceConfig:
        """What the motion of all clips means."""
        return self.clips.space.cfg

    def stats(self) -> MotionStats:
        """Mean and deviation of the motion as training will see it: weighted by the shares.

        Reads the motion of all clips once (2.7 kB a second), one file at a time.
        """
        weight = self.probability / np.maximum(self.clips.length, 1)
        space = self.clips.space
        mean, square = np.zeros(space.dim), np.zeros(space.dim)
        for number, motion in self.clips.motions():
            mean += weight[number] * motion.sum(0)
            square += weight[number] * np.square(motion).sum(0)
        std = np.maximum(np.sqrt(np.maximum(square - np.square(mean), 0.0)), 0.02)
        return MotionStats(mean.astype(np.float32), std.astype(np.float32), space)


def _readout(folder: Path) -> dict[str, Any] | None:
    """What ``vasa-jax encode`` found to be readable off a code, beside its records."""
    path = folder / READOUT
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path}: {error}; make the latents again") from error


def _indispensable(people: np.ndarray) -> set[str]:
    """The person of a folder without whom less than half of it would be left, if there is one."""
    counts = Counter(str(name) for name in people if name)
    return {name for name, count in counts.items() if 2 * count > len(people)}


def _held_out(people: np.ndarray, share: float, needed: set[str]) -> np.ndarray:
    """Which clips of one folder are held out (N,); ``needed`` people never are."""
    wanted = max(1, round(share * len(people)))
    names = np.array([name or f"/{i}" for i, name in enumerate(people)])  # unknown: each its own
    clips = Counter(name for name in names.tolist() if name not in needed)
    taken: list[str] = []
    for name in reversed(clips):  # in order of their first clip
        if sum(clips[n] for n in taken) + clips[name] > wanted:
            break
        taken.append(name)
    if not taken and clips:
        taken = [min(reversed(clips), key=lambda name: clips[name])]
    if not taken:
        return np.arange(len(people)) >= len(people) - wanted
    return np.isin(names, taken)
