"""A picture on the lattice: straight, two samples per chip, without its content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from vasa_jax.provenance.pattern import EARLIER_MIN_PITCH, MIN_PITCH, natural_pitch
from vasa_jax.provenance.score import SIDE

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
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


class Samples(NamedTuple):
    """Whitened samples (Y, X), and how many lie before them from a place of phase zero on."""

    values: np.ndarray  # float32
    before: tuple[int, int]  # y, x; less than ``SIDE``

    def blocks(self) -> np.ndarray:
        """(rows, 64, columns, 64): whole tiles, zeros around the samples."""
        edges = [(n, -(n + k) % SIDE) for n, k in zip(self.before, self.values.shape, strict=True)]
        padded = np.pad(self.values, edges)
        rows, columns = (n // SIDE for n in padded.shape)
        return padded.reshape(rows, SIDE, columns, SIDE)


def luminance(picture: np.ndarray) -> np.ndarray:
    """RGB (Y, X, 3), or grey (Y, X), as float32 luminance in grey levels."""
    return np.asarray(picture @ LUMA if picture.ndim == 3 else picture, np.float32)


def straightened(grey: np.ndarray, angle: float, mirrored: bool) -> np.ndarray:
    """What was turned by ``angle`` degrees, after mirroring where ``mirrored``, as it was before.

    Angles count counter-clockwise, about the middle; what lay outside is the mean grey.
    """
    if angle != 0.0:
        image = Image.fromarray(grey)
        back = image.rotate(-angle, Image.Resampling.BICUBIC, fillcolor=float(grey.mean()))
        grey = np.asarray(back, np.float32)
    return np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey


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
        low, high = (
            max(natural_pitch(side / scale), least) * scale
            for scale, least in zip(SCALES, (EARLIER_MIN_PITCH, MIN_PITCH), strict=True)
        )
        low, high = max(0.88 * low, WIDE_PITCHES[0]), min(1.14 * high, WIDE_PITCHES[1])
    low, high = min(low, side / 8), min(high, side / 8)
    count = max(1, math.ceil(math.log(high / low) / COARSE_STEP))
    return np.geomspace(low, high, count)


def whitened(
    grey: np.ndarray,
    pitch_y: float,
    pitch_x: float,
    most: int,
    late: Sequence[float] = (0.0, 0.0),
) -> Samples:
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
    from scipy.fft import irfft2, next_fast_len, rfft2
    from scipy.ndimage import gaussian_filter, uniform_filter

    x = np.asarray(sampled, np.float32)
    x = x - gaussian_filter(x, _HIGH_PASS, truncate=3.0)
    deviation = np.sqrt(np.maximum(uniform_filter(x * x, 5), 0.0))
    x = x / (deviation + _FLOOR)
    x = np.clip(x, -_CLIP, _CLIP)
    fast = [next_fast_len(n, real=True) for n in x.shape]
    spectrum = rfft2(x, fast)
    power = uniform_filter(np.abs(spectrum) ** 2, _SMOOTH, mode="nearest")
    power += 0.05 * power.mean() + 1e-12
    flat = irfft2(spectrum / power ** (_FLATTEN / 2), fast)[: x.shape[0], : x.shape[1]]
    flat = flat / (flat.std() + 1e-12)
    # All now have the same noise, but the mark is the weaker the more texture there was.
    x = (np.clip(flat, -3.0, 3.0) * (_TRUSTED / (_TRUSTED + deviation))).astype(np.float32)
    # Phases are counted from the picture's corner.
    return Samples(x, (2 * top % SIDE, 2 * left % SIDE))


def folded(
    grey: np.ndarray, pitch_y: float, pitch_x: float, late: Sequence[float] = (0.0, 0.0)
) -> tuple[np.ndarray, int]:
    """The tile (64, 64) of the whole picture, and how many chips are in it."""
    samples = whitened(grey, pitch_y, pitch_x, MAX_CHIPS_FINE, late)
    return samples.blocks().sum((0, 2)), int(np.count_nonzero(samples.values)) // 4


def folds(samples: Samples) -> tuple[list[float], np.ndarray]:
    """Ratios (K) to the pitch that was resampled, and what is folded for each: (K, 64, 64)."""
    blocks = samples.blocks()
    rows, columns = blocks.shape[0], blocks.shape[2]
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
