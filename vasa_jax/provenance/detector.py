"""Is the mark in a picture, and how sure is that?

A picture (of a video: the mean of many frames, in which moving content blurs and the mark stays) is
resampled to two samples per chip for every pitch that it may have; content is whitened: a high
pass, division by the local deviation, partial flattening of the spectrum, and less weight for
texture (``samples.py``). The result is folded into one tile and compared with the pilot at all
phases (``score.py``).

*False alarms.* Whatever a picture without the mark shows, the probability of its score has a bound
that is a theorem (``score.py``), and over N looks the union bound gives N times that. There is
nothing to calibrate; ``tools/bench_mark`` compares it with what clean material scores.

*Parts.* Most files were at most halved, never cropped, mirrored or turned: for these the lattice
lies in one of two places. The search goes from there to ever more places, and each part of it has a
share of the bound that was fixed before anybody looked (``SHARES``): the fewer its places, the
lower the score that is enough.

| part | where | looks | enough |
|---|---|---|---|
| likely | as it was, or halved | 2 | 5.3 |
| expected | ten scales, two layouts, also mirrored, a sample off | 360 | 6.3 |
| everywhere | all pitches and phases, also mirrored | 3 million | 7.7 |
| refined | the best so far, steps so small that crops fit | 100 million | 8.1 |
| turned | up to 3 degrees, else everywhere (``turned.py``) | 14 million | 7.8 |
| turned, refined | the best of these | 2 thousand million | 8.4 |

Since what is refined depends on the scores so far, all places count there that could have been
refined. A part is left out when one before it was sure.

Folding for neighbouring pitches shares the resampling: one tile is short enough that a pitch wrong
by 1.5 % still fits it, so that only whole tiles are shifted against each other.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vasa_jax.provenance.pattern import PUBLIC_KEY, earlier_pitch_of, layout, pitch_of
from vasa_jax.provenance.payload import CODED_BITS, Payload, decode
from vasa_jax.provenance.samples import (
    MAX_CHIPS,
    MOST_FOLDS,
    Samples,
    folded,
    folds,
    luminance,
    pitches,
    straightened,
    whitened,
)
from vasa_jax.provenance.score import BOUND, SIDE, Matcher, chips_at, tail, threshold
from vasa_jax.provenance.turned import ANGLES, RATIOS, Lattice, best_turned

__all__ = ["BOUND", "SURE", "Found", "Geometry", "find", "look", "read_payload", "threshold"]

SURE = 1e-9  # no further search at or below it: leaves room for the many stretches of a video
SHARES = {
    "likely": 0.4, "expected": 0.2, "everywhere": 0.1, "refined": 0.1, "turned": 0.1,
    "turned, refined": 0.1,
}  # of the bound; their sum is 1  # fmt: skip
LIKELY_SCALES = (1.0, 0.5)
EXPECTED_SCALES = (*LIKELY_SCALES, 2 / 3, 0.75, 0.8, 0.9, 1.25, 4 / 3, 1.5, 2.0)

_NEAR = [(0, 0), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]  # steps of the pitches
_CLIMBS = 6
_WORTH = 0.1  # of score; for less, noise would move a lattice that lies where it was expected
_WORTH_TURNING = 0.04  # of the score; of strong marks it hardly depends on the angle
_LATE = [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)]  # samples
_PROMISING = 5.7  # score of a turned lattice; chance gives as much in one clean picture of ten
_NEAR_ANGLES = (0.0, 0.5, -0.5, 1.0, -1.0)  # steps that move the edge by half a chip


class Geometry(NamedTuple):
    """Where the lattice lies: px per chip, and the phase in samples of half a chip.

    Phases are multiples of half a sample: the whole ones come from folding, for the halves the
    picture is resampled half a sample later. They hold for the picture as ``straightened``.
    """

    pitch_y: float
    pitch_x: float
    phase_y: float
    phase_x: float
    angle: float = 0.0  # degrees
    mirrored: bool = False


_Trial = tuple[float, float, float, float, float]  # pitches, half samples, angle


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The best look at one picture."""

    score: float  # z of equation (1) in ``score.py``
    looks: int  # in the part of the search that says most
    alarms: float  # bound on the mean number of looks in a clean picture that score so; may pass 1
    geometry: Geometry
    tile: np.ndarray  # (32, 32) folded, whitened samples at that geometry
    chips: int  # of the picture, that were folded

    @property
    def false_alarm(self) -> float:
        """Bound on the probability that a picture without this mark scores as high."""
        return min(1.0, self.alarms)


class _Part(NamedTuple):
    """What one part of the search found."""

    name: str
    score: float
    looks: int
    lattice: Lattice  # where the best look was

    @property
    def alarms(self) -> float:
        return self.looks * tail(self.score) / SHARES[self.name]


class _Look(NamedTuple):
    """One look at a geometry."""

    score: float
    geometry: Geometry
    tile: np.ndarray  # as in ``Found``
    chips: int


def find(picture: np.ndarray, *, key: bytes = PUBLIC_KEY, wide: bool = False) -> Found:
    """The best look at a picture: RGB uint8 or float, or grey, at least 24 px on each side."""
    grey = luminance(picture)
    height, width = grey.shape
    if min(height, width) < 24:
        raise ValueError(f"a picture of {width}x{height} px is too small")
    matcher = Matcher(key)

    parts = [*_where_expected(grey, matcher)]
    searched: list[tuple[float, Samples]] = []
    if _best(parts).alarms > SURE:
        searched = [(p, whitened(grey, p, p, MAX_CHIPS)) for p in pitches(height, width, wide=wide)]
        parts.append(_everywhere(searched, matcher))
    spans = len(pitches(height, width, wide=wide))
    starts = 2 * (2 * len(EXPECTED_SCALES) + spans * MOST_FOLDS)
    refined, found = _refine(grey, _best(parts).lattice, matcher, starts)
    parts.append(refined)
    if _best(parts).alarms > SURE:
        turned, its_look = _turned(grey, searched, matcher)
        if its_look is not None and _best(turned).alarms < _best(parts).alarms:
            found = its_look
        parts += turned
    best = _best(parts)
    return Found(looks=best.looks, alarms=best.alarms, **found._asdict())


def _best(parts: Sequence[_Part]) -> _Part:
    return min(parts, key=lambda part: part.alarms)


def _where_expected(grey: np.ndarray, matcher: Matcher) -> Iterator[_Part]:
    """The best looks at the lattice of a picture that was scaled by a common ratio, not cropped."""
    height, width = grey.shape
    near = np.arange(-1, 2)  # samples; a file's first pixels may be lost on the way
    best: tuple[float, Lattice] = (-math.inf, Lattice(1.0))
    for mirrored in (False, True):
        straight = straightened(grey, 0.0, mirrored)
        likely: tuple[float, Lattice] = (-math.inf, Lattice(1.0))
        for scale in EXPECTED_SCALES:
            before = round(height / scale), round(width / scale)
            for px in dict.fromkeys((pitch_of(*before), earlier_pitch_of(*before))):
                pitch = px * scale
                scores = matcher(folded(straight, pitch, pitch)[0])[np.ix_(near, near)]
                here = Lattice(pitch, mirrored=mirrored)
                best = max(best, (float(scores.max()), here))
                if scale in LIKELY_SCALES and px == pitch_of(*before):
                    likely = max(likely, (float(scores[1, 1]), here))
        if not mirrored:
            yield (first := _Part("likely", likely[0], len(LIKELY_SCALES), likely[1]))
            if first.alarms <= SURE:
                return
    looks = 2 * len(EXPECTED_SCALES) * 2 * near.size**2
    yield _Part("expected", best[0], looks, best[1])


def _everywhere(searched: list[tuple[float, Samples]], matcher: Matcher) -> _Part:
    """The best look at all pitches and phases."""
    best, looks = (-math.inf, Lattice(1.0)), 0
    for pitch, samples in searched:
        ratios, tiles = folds(samples)
        for mirrored in (False, True):
            scores = matcher(tiles[..., ::-1] if mirrored else tiles)
            looks += scores.size
            at = int(scores.argmax())
            where = Lattice(float(pitch * ratios[at // SIDE**2]), mirrored=mirrored)
            best = max(best, (float(scores.flat[at]), where))
    return _Part("everywhere", best[0], looks, best[1])


def _turned(
    grey: np.ndarray, searched: list[tuple[float, Samples]], matcher: Matcher
) -> tuple[list[_Part], _Look | None]:
    """The best look at turned lattices, and what refining it gives where that is worth the time."""
    score, looks, at = best_turned(searched, matcher)
    part = _Part("turned", score, looks, at)
    if score < _PROMISING:
        return [part], None
    step = math.degrees(at.pitch / max(grey.shape))
    trials = [at._replace(angle=at.angle + step * n) for n in _NEAR_ANGLES]

    def score_of(trial: Lattice) -> float:
        straight = straightened(grey, trial.angle, trial.mirrored)
        return float(matcher(folded(straight, trial.pitch, trial.pitch)[0]).max())

    starts = len(searched) * len(ANGLES) * len(RATIOS) * 2 * len(trials)
    refined, its_look = _refine(grey, max(trials, key=score_of), matcher, starts)
    return [part, refined._replace(name="turned, refined")], its_look


def look(picture: np.ndarray, geometry: Geometry, *, key: bytes = PUBLIC_KEY) -> Found:
    """One look at a known geometry, as of another stretch of the same video."""
    (y, late_y), (x, late_x) = (divmod(p, 1.0) for p in (geometry.phase_y, geometry.phase_x))
    grey = straightened(luminance(picture), geometry.angle, geometry.mirrored)
    tile, chips = folded(grey, geometry.pitch_y, geometry.pitch_x, (late_y, late_x))
    score = float(Matcher(key)(tile)[int(y), int(x)])
    tile = chips_at(tile, int(y), int(x))
    return Found(
        score=score, looks=1, alarms=tail(score), geometry=geometry, tile=tile, chips=chips
    )


def soft_bits(tile: np.ndarray, key: bytes = PUBLIC_KEY) -> np.ndarray:
    """(256,) soft values of the coded bits from a tile of chips (32, 32)."""
    sign, pilot, bit = layout(key)
    values = (tile * sign)[~pilot]
    return np.bincount(bit[~pilot], weights=values, minlength=CODED_BITS)


def read_payload(tile: np.ndarray, key: bytes = PUBLIC_KEY) -> Payload | None:
    """What a found tile says; None when its checksum does not fit."""
    return decode(soft_bits(tile, key))[0]


def _refine(grey: np.ndarray, start: Lattice, matcher: Matcher, starts: int) -> tuple[_Part, _Look]:
    """The best look near a lattice, with the whole picture and both directions on their own.

    Pitches and half samples go together: a wrong pitch makes up for a phase between two samples.
    Returns the part (of the first round alone, whose looks can be counted) for a search that may
    start at ``starts`` lattices, and the best look of all rounds.
    """
    pitch = start.pitch
    step_y, step_x = (pitch / max(1.0, n / pitch) for n in grey.shape)  # half a chip at the edges
    turn = math.degrees(pitch / max(grey.shape))  # likewise
    straight = functools.cache(lambda angle: straightened(grey, angle, start.mirrored))
    seen: dict[_Trial, _Look] = {}

    def score_at(trial: _Trial) -> float:
        if trial not in seen:
            y, x, late_y, late_x, angle = trial
            tile, chips = folded(straight(angle), y, x, (late_y, late_x))
            scores = matcher(tile)
            row, column = divmod(int(scores.argmax()), SIDE)
            geometry = Geometry(y, x, row + late_y, column + late_x, angle, start.mirrored)
            seen[trial] = _Look(
                float(scores[row, column]), geometry, chips_at(tile, row, column), chips
            )
        return seen[trial].score

    def best_of(here: _Trial, trials: list[_Trial], worth: float = _WORTH) -> _Trial:
        there = max(trials, key=score_at)
        return there if score_at(there) > score_at(here) + worth else here

    at: _Trial = (pitch, pitch, 0.0, 0.0, start.angle)
    first = -math.inf
    for scale in (*_CLIMBS * [1.0], 0.5, 0.25):  # a climb that leads nowhere costs nothing
        y, x = step_y * scale, step_x * scale
        at = best_of(at, [(at[0] + i * y, at[1] + j * x, *at[2:]) for i, j in _NEAR])
        at = best_of(at, [(*at[:2], i, j, at[4]) for i, j in _LATE])
        first = seen[at].score if first == -math.inf else first
        turns = [(*at[:4], at[4] + k * turn * scale) for k in (-1, 1)]
        at = best_of(at, turns, _WORTH_TURNING * seen[at].score)
    looks = starts * len(_NEAR) * len(_LATE) * SIDE**2
    return _Part("refined", first, looks, start), seen[at]
