"""The search for a lattice that was turned by a few degrees.

Within a picture's middle, samples are gathered along lattices of ten angles and, about each pitch
that was resampled, three sizes: the nearest sample, at most a quarter of a chip off. Between these
the lattice's edge moves by half a chip. What was gathered is folded and matched like anything else;
since the places are the same for all pitches, they are computed once.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from vasa_jax.provenance.samples import COARSE_STEP, Samples
from vasa_jax.provenance.score import SIDE, Matcher

MOST_DEGREES = 3.0
TILES = 3  # a side of the part that is searched
STEP = 0.6  # degrees: half a chip at the edge of 96 chips
ANGLES = [STEP * k for k in range(-5, 6) if k]
RATIOS = [1.0 + COARSE_STEP / 3 * k for k in (-1, 0, 1)]
_EXACT = 8  # of the best that the quick score names


class Lattice(NamedTuple):
    """Where a search found most."""

    pitch: float  # px
    angle: float = 0.0  # degrees, see ``samples.straightened``
    mirrored: bool = False


def best_turned(
    candidates: list[tuple[float, Samples]], matcher: Matcher
) -> tuple[float, int, Lattice]:
    """The best score, the number of looks, and the lattice, for (pitch, samples) pairs."""
    tiles, about = [], []
    for _, samples in candidates:
        tiles.append(_gathered(samples))
        about.append(matcher.about(tiles[-1]))
    ranks = np.stack(about)  # pitch, angle and ratio, mirrored
    best = (-math.inf, Lattice(candidates[0][0]))
    for at in np.argsort(-ranks, axis=None)[:_EXACT]:
        i, k, mirrored = (int(n) for n in np.unravel_index(at, ranks.shape))
        tile = tiles[i][k]
        score = float(matcher(tile[:, ::-1] if mirrored else tile).max())
        pitch, angle = candidates[i][0] * RATIOS[k % len(RATIOS)], ANGLES[k // len(RATIOS)]
        best = max(best, (score, Lattice(pitch, angle, bool(mirrored))))
    return best[0], ranks.size * SIDE**2, best[1]


def _gathered(samples: Samples) -> np.ndarray:
    """(angles x ratios, 64, 64): the middle of the samples, folded along each lattice."""
    side = TILES * SIDE + 2  # with a frame of zeros, for what lies outside
    window = np.zeros((side, side), np.float32)
    values = samples.values
    cut, to = zip(*(_middle(n, side - 2) for n in values.shape), strict=True)
    window[1:-1, 1:-1][to] = values[cut]
    found = window.reshape(-1)[_places(side)]
    count = len(found)
    return found.reshape(count, TILES, SIDE, TILES, SIDE).sum((1, 3))


def _middle(length: int, most: int) -> tuple[slice, slice]:
    """From where in ``length`` samples, and to where in ``most``, the middle goes."""
    count = min(length, most)
    start, target = (length - count) // 2, (most - count) // 2
    return slice(start, start + count), slice(target, target + count)


@functools.lru_cache(maxsize=1)
def _places(side: int) -> np.ndarray:
    """(angles x ratios, n, n) int32: for each sample of a straight lattice the one nearest it."""
    count = side - 2
    along = (np.arange(count) + 0.5 - count / 2).astype(np.float32)
    y, x = along[:, None], along[None, :]
    out = np.empty((len(ANGLES) * len(RATIOS), count, count), np.int32)
    for a, angle in enumerate(ANGLES):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for r, ratio in enumerate(RATIOS):
            from_y = ratio * (cosine * y - sine * x) + side / 2
            from_x = ratio * (sine * y + cosine * x) + side / 2
            row, column = (np.clip(np.floor(v), 0, side - 1) for v in (from_y, from_x))
            out[a * len(RATIOS) + r] = row * side + column
    return out
