"""Is the mark in a picture, and how sure is that?

A picture (of a video: the mean of many frames, in which moving content blurs and the mark stays) is
resampled to two samples per chip for every pitch that it may have; content is whitened: a high
pass, division by the local deviation, partial flattening of the spectrum, and less weight for
texture. The result is folded into one tile, f, and correlated with the pilot's signs s at all
phases:

    z = sum_i s_i f_i / sqrt(sum_i f_i^2)                                                     (1)

*False alarms.* The signs are pseudo-random and know nothing of content that does not carry them.
Whatever f is, (1) is then a sum of independent fair signs with weights of unit norm. No such sum
exceeds t more often than

    P(z >= t) <= P(g >= t) / (4 P(g >= sqrt 2)),   g normal                                   (2)

(Bentkus and Dzindzalieta, Bernoulli 21, 2015, theorem 1.1), and over N looks (pitches times phases)
the union bound gives N times that. There is nothing to calibrate; ``tools/bench_mark`` compares it
with what clean material scores.

*Three parts.* Most files were scaled by a common ratio, if at all, and never cropped: the lattice
then lies in one of a few places. These hundred looks have a third of the bound for themselves and
need a score of 6.0. The million others, which find anything, share another third and need 7.4. The
best place is then refined; since where depends on the scores so far, all places count that could
have been refined, forty million looks, which share the rest and need 7.8.

Folding for neighbouring pitches shares the resampling: one tile is short enough that a pitch wrong
by 1.5 % still fits it, so that only whole tiles are shifted against each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from vasa_jax.provenance.pattern import (
    MIN_PITCH,
    PUBLIC_KEY,
    TILE,
    layout,
    natural_pitch,
    pitch_of,
)
from vasa_jax.provenance.payload import CODED_BITS, Payload, decode

BOUND = 1e-6  # a mark is said to be found at or below this probability of a false alarm
SURE = 1e-9  # no further search at or below it: leaves room for the many stretches of a video
PARTS = 3  # that share the bound: where marks are expected, everywhere, and refined
EXPECTED_SCALES = (1.0, 0.5, 2 / 3, 0.75, 0.8, 0.9, 1.25, 4 / 3, 1.5, 2.0)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SIDE = 2 * TILE  # samples per tile

COARSE_STEP = 0.03  # ratio of neighbouring pitches that are resampled
MAX_CHIPS = 160  # a side of the part that is searched; all of it is used once found
MAX_CHIPS_FINE = 400
MOST_FOLDS = 2 * math.ceil(MAX_CHIPS * COARSE_STEP / 2) + 1  # per pitch that is resampled
SCALES = (0.42, 1.8)  # of pictures since they were marked, crops included; see ``pitches``
WIDE_PITCHES = (1.3, 16.0)

_HIGH_PASS = 1.1  # standard deviation, samples
_FLOOR = 0.05  # grey levels
_TRUSTED = 4.0  # grey levels; where the deviation is as large, a sample counts half
_CLIP = 2.0
_FLATTEN = 0.75  # exponent by which the spectrum's magnitude is divided out
_SMOOTH = 9  # bins over which it is estimated
_NEAR = [(0, 0), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]  # steps of the pitches
_CLIMBS = 6
_WORTH = 0.1  # of score; for less, noise would move a lattice that lies where it was expected
_LATE = [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)]  # samples


class Geometry(NamedTuple):
    """Where the lattice lies: px per chip, and the phase in samples of half a chip.

    Phases are multiples of half a sample: the whole ones come from folding, for the halves the
    picture is resampled half a sample later.
    """

    pitch_y: float
    pitch_x: float
    phase_y: float
    phase_x: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The best look at one picture."""

    score: float  # z of equation (1)
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

    score: float
    looks: int
    pitch: float  # px, where the best look was

    @property
    def alarms(self) -> float:
        return PARTS * self.looks * tail(self.score)


class _Look(NamedTuple):
    """One look at a geometry."""

    score: float
    geometry: Geometry
    tile: np.ndarray  # as in ``Found``
    chips: int


def tail(score: float) -> float:
    """Right side of equation (2), at most 1: of one look."""
    return min(1.0, 0.25 * math.erfc(score / math.sqrt(2.0)) / math.erfc(1.0))


def threshold(looks: int, bound: float = BOUND) -> float:
    """The score from which the false alarm of so many looks is at most ``bound``."""
    from scipy.special import erfcinv

    return math.sqrt(2.0) * float(erfcinv(4.0 * math.erfc(1.0) * bound / (PARTS * looks)))


def luminance(picture: np.ndarray) -> np.ndarray:
    """RGB (Y, X, 3), or grey (Y, X), as float32 luminance in grey levels."""
    return np.asarray(picture @ LUMA if picture.ndim == 3 else picture, np.float32)


def pitches(height: int, width: int, *, wide: bool = False) -> np.ndarray:
    """Pitches to try for a picture of that size, in px.

    A picture of side n that was scaled by s had the side n / s, hence the pitch ``natural_pitch(n /
    s)`` before and s times that now. ``wide`` tries all from 1.3 to 16 px, for pictures that were
    put into others.
    """
    side = min(height, width)
    if wide:
        low, high = WIDE_PITCHES
    else:
        # Whole pixels, and the smallest pitch, make it a little finer or coarser than the rule.
        low, high = (max(natural_pitch(side / s), MIN_PITCH) * s for s in SCALES)
        low, high = max(0.88 * low, WIDE_PITCHES[0]), min(1.14 * high, WIDE_PITCHES[1])
    low, high = min(low, side / 8), min(high, side / 8)
    count = max(1, math.ceil(math.log(high / low) / COARSE_STEP))
    return np.geomspace(low, high, count)


def find(picture: np.ndarray, *, key: bytes = PUBLIC_KEY, wide: bool = False) -> Found:
    """The best look at a picture: RGB uint8 or float, or grey, at least 24 px on each side."""
    grey = luminance(picture)
    height, width = grey.shape
    if min(height, width) < 24:
        raise ValueError(f"a picture of {width}x{height} px is too small")
    matcher = _Matcher(key)
    parts = [_where_expected(grey, matcher)]
    if parts[0].alarms > SURE:
        parts.append(_everywhere(grey, matcher, wide))
    pitch = min(parts, key=lambda part: part.alarms).pitch
    starts = len(EXPECTED_SCALES) + len(pitches(height, width, wide=wide)) * MOST_FOLDS
    refined, found = _refine(grey, pitch, matcher, starts)
    best = min(*parts, refined, key=lambda part: part.alarms)
    return Found(looks=best.looks, alarms=best.alarms, **found._asdict())


def _where_expected(grey: np.ndarray, matcher: _Matcher) -> _Part:
    """The best look at the lattice of a picture that was scaled by a common ratio, not cropped."""
    height, width = grey.shape
    near = np.arange(-1, 2)  # samples; a file's first pixels may be lost on the way
    best, looks = (-math.inf, 0.0), 0
    for scale in EXPECTED_SCALES:
        pitch = pitch_of(round(height / scale), round(width / scale)) * scale
        scores = matcher(_folded(grey, pitch, pitch)[0])[np.ix_(near, near)]
        looks += scores.size
        best = max(best, (float(scores.max()), pitch))
    return _Part(best[0], looks, best[1])


def _everywhere(grey: np.ndarray, matcher: _Matcher, wide: bool) -> _Part:
    """The best look at all pitches and phases."""
    best, looks = (-math.inf, 0.0), 0
    for pitch in pitches(*grey.shape, wide=wide):
        ratios, tiles = _folds(whitened(grey, pitch, pitch, MAX_CHIPS))
        scores = matcher(tiles)
        looks += scores.size
        at = int(scores.argmax())
        best = max(best, (float(scores.flat[at]), float(pitch * ratios[at // SIDE**2])))
    return _Part(best[0], looks, best[1])


def look(picture: np.ndarray, geometry: Geometry, *, key: bytes = PUBLIC_KEY) -> Found:
    """One look at a known geometry, as of another stretch of the same video."""
    (y, late_y), (x, late_x) = (divmod(phase, 1.0) for phase in geometry[2:])
    tile, chips = _folded(luminance(picture), geometry.pitch_y, geometry.pitch_x, (late_y, late_x))
    score = float(_Matcher(key)(tile)[int(y), int(x)])
    tile = _chips_at(tile, int(y), int(x))
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


def whitened(
    grey: np.ndarray,
    pitch_y: float,
    pitch_x: float,
    most: int,
    late: Sequence[float] = (0.0, 0.0),
) -> np.ndarray:
    """Two samples per chip of (at most ``most`` chips of) the picture, without its content.

    The part is the middle one; its corner lies a whole number of chips from the picture's, or
    ``late`` samples (y, x) more.
    """
    height, width = grey.shape
    begin_y, begin_x = late[0] * pitch_y / 2, late[1] * pitch_x / 2
    count_y, count_x = int((height - begin_y) / pitch_y), int((width - begin_x) / pitch_x)
    rows, columns = min(count_y, most), min(count_x, most)
    top, left = (count_y - rows) // 2, (count_x - columns) // 2
    begin_y, begin_x = begin_y + top * pitch_y, begin_x + left * pitch_x
    box = (begin_x, begin_y, begin_x + columns * pitch_x, begin_y + rows * pitch_y)
    sampled = Image.fromarray(grey).resize(
        (2 * columns, 2 * rows), Image.Resampling.BICUBIC, box=box
    )
    from scipy.fft import next_fast_len
    from scipy.ndimage import gaussian_filter, uniform_filter

    x = np.asarray(sampled, np.float32)
    x = x - gaussian_filter(x, _HIGH_PASS, truncate=3.0)
    deviation = np.sqrt(np.maximum(uniform_filter(x * x, 5), 0.0))
    x = x / (deviation + _FLOOR)
    x = np.clip(x, -_CLIP, _CLIP)
    fast = [next_fast_len(n, real=True) for n in x.shape]
    spectrum = np.fft.rfft2(x, fast)
    power = uniform_filter(np.abs(spectrum) ** 2, _SMOOTH, mode="nearest")
    power += 0.05 * power.mean() + 1e-12
    flat = np.fft.irfft2(spectrum / power ** (_FLATTEN / 2), fast)[: x.shape[0], : x.shape[1]]
    flat = flat / (flat.std() + 1e-12)
    # All now have the same noise, but the mark is the weaker the more texture there was.
    x = (np.clip(flat, -3.0, 3.0) * (_TRUSTED / (_TRUSTED + deviation))).astype(np.float32)
    # Phases are counted from the picture's corner, so zeros stand for whole chips before the part.
    before, size = (2 * top % SIDE, 2 * left % SIDE), x.shape
    after = [-(n + k) % SIDE for n, k in zip(size, before, strict=True)]
    return np.pad(x, ((before[0], after[0]), (before[1], after[1])))


def _folds(samples: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Ratios (K) to the pitch that was resampled, and what is folded for each: (K, 64, 64)."""
    rows, columns = (n // SIDE for n in samples.shape)
    blocks = samples.reshape(rows, SIDE, columns, SIDE)
    longest = max(rows, columns) * SIDE / 2  # samples from the middle to the edge
    steps = math.ceil(longest * COARSE_STEP / 2) if rows * columns > 1 else 0
    ratios, tiles = [], []
    for step in range(-steps, steps + 1):
        delta = step / longest
        folded_y = sum(np.roll(blocks[i], -_shift(i, rows, delta), axis=0) for i in range(rows))
        tile = sum(
            np.roll(folded_y[:, j], -_shift(j, columns, delta), axis=1) for j in range(columns)
        )
        ratios.append(1.0 + delta)
        tiles.append(tile)
    return ratios, np.stack(tiles)


def _shift(block: int, count: int, delta: float) -> int:
    """Samples by which a block's middle has moved when the pitch is larger by ``delta``."""
    return round((block - (count - 1) / 2) * SIDE * delta)


class _Matcher:
    """Equation (1) at all 64 x 64 phases of tiles (..., 64, 64) float32."""

    def __init__(self, key: bytes):
        sign, pilot, _ = layout(key)
        signs, mask = np.zeros((2, SIDE, SIDE))
        signs[::2, ::2] = np.where(pilot, sign, 0)
        mask[::2, ::2] = pilot
        self._signs = np.conj(np.fft.rfft2(signs)).astype(np.complex64)
        self._mask = np.conj(np.fft.rfft2(mask)).astype(np.complex64)

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        chips = _boxes(tile)
        energy = chips * chips
        agree = np.fft.irfft2(np.fft.rfft2(chips) * self._signs, (SIDE, SIDE))
        norm = np.fft.irfft2(np.fft.rfft2(energy) * self._mask, (SIDE, SIDE))
        least = 1e-5 * energy.sum((-1, -2), keepdims=True) + 1e-20  # of rounding, or of nothing
        return agree / np.sqrt(np.maximum(norm, least))


def _boxes(tile: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 samples from each sample on: a chip at every phase."""
    rows = tile + np.roll(tile, -1, -2)
    return rows + np.roll(rows, -1, -1)


def _chips_at(tile: np.ndarray, y: int, x: int) -> np.ndarray:
    return np.roll(_boxes(tile), (-y, -x), (0, 1))[::2, ::2]


def _folded(
    grey: np.ndarray, pitch_y: float, pitch_x: float, late: Sequence[float] = (0.0, 0.0)
) -> tuple[np.ndarray, int]:
    samples = whitened(grey, pitch_y, pitch_x, MAX_CHIPS_FINE, late)
    rows, columns = (n // SIDE for n in samples.shape)
    tile = samples.reshape(rows, SIDE, columns, SIDE).sum((0, 2))
    return tile, int(np.count_nonzero(samples)) // 4


def _refine(grey: np.ndarray, pitch: float, matcher: _Matcher, starts: int) -> tuple[_Part, _Look]:
    """The best look near a pitch, with the whole picture and both directions on their own.

    Pitches and half samples go together: a wrong pitch makes up for a phase between two samples.
    Returns the part (of the first round alone, whose looks can be counted) for a search that may
    start at ``starts`` pitches, and the best look of all rounds.
    """
    step_y, step_x = (pitch / max(1.0, n / pitch) for n in grey.shape)  # half a chip at the edges
    seen: dict[tuple[float, ...], _Look] = {}

    def score_at(trial: tuple[float, ...]) -> float:
        if trial not in seen:
            tile, chips = _folded(grey, trial[0], trial[1], trial[2:])
            scores = matcher(tile)
            y, x = divmod(int(scores.argmax()), SIDE)
            geometry = Geometry(trial[0], trial[1], y + trial[2], x + trial[3])
            seen[trial] = _Look(float(scores[y, x]), geometry, _chips_at(tile, y, x), chips)
        return seen[trial].score

    def best_of(here: tuple[float, ...], trials: list[tuple[float, ...]]) -> tuple[float, ...]:
        there = max(trials, key=score_at)
        return there if score_at(there) > score_at(here) + _WORTH else here

    at: tuple[float, ...] = (pitch, pitch, 0.0, 0.0)
    first = -math.inf
    for scale in (*_CLIMBS * [1.0], 0.5, 0.25):  # a climb that leads nowhere costs nothing
        y, x = step_y * scale, step_x * scale
        at = best_of(at, [(at[0] + i * y, at[1] + j * x, *at[2:]) for i, j in _NEAR])
        at = best_of(at, [(*at[:2], i, j) for i, j in _LATE])
        first = seen[at].score if first == -math.inf else first
    looks = starts * len(_NEAR) * len(_LATE) * SIDE**2
    return _Part(first, looks, pitch), seen[at]
