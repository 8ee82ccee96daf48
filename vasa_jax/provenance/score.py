"""How much a tile looks like the pilot, and how rarely chance gives as much.

A tile of folded samples, f, is correlated with the pilot's signs s at all phases:

    z = sum_i s_i f_i / sqrt(sum_i f_i^2)                                                     (1)

The signs are pseudo-random and know nothing of content that does not carry them. Whatever f is, (1)
is then a sum of independent fair signs with weights of unit norm. No such sum exceeds t more often
than

    P(z >= t) <= P(g >= t) / (4 P(g >= sqrt 2)),   g normal                                   (2)

(Bentkus and Dzindzalieta, Bernoulli 21, 2015, theorem 1.1), and over N looks the union bound gives
N times that, however they depend on each other.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft  # on stacks of single precision several times as fast as numpy's

from vasa_jax.provenance.pattern import TILE, layout

BOUND = 1e-6  # a mark is said to be found at or below this probability of a false alarm
SIDE = 2 * TILE  # samples per tile


def tail(score: float) -> float:
    """Right side of equation (2), at most 1: of one look."""
    return min(1.0, 0.25 * math.erfc(score / math.sqrt(2.0)) / math.erfc(1.0))


def threshold(looks: float, bound: float = BOUND) -> float:
    """The score from which the false alarm of so many looks is at most ``bound``."""
    from scipy.special import erfcinv

    return math.sqrt(2.0) * float(erfcinv(4.0 * math.erfc(1.0) * bound / looks))


class Matcher:
    """Equation (1) at all 64 x 64 phases of tiles (..., 64, 64) float32."""

    def __init__(self, key: bytes):
        sign, pilot, _ = layout(key)
        signs, mask = np.zeros((2, SIDE, SIDE))
        signs[::2, ::2] = np.where(pilot, sign, 0)
        mask[::2, ::2] = pilot
        self._signs, self._mirrored, self._mask = (
            np.conj(np.fft.rfft2(values)).astype(np.complex64)
            for values in (signs, signs[:, ::-1], mask)
        )

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        chips = boxes(tile)
        energy = chips * chips
        agree = _correlated(scipy.fft.rfft2(chips), self._signs)
        norm = _correlated(scipy.fft.rfft2(energy), self._mask)
        least = 1e-5 * energy.sum((-1, -2), keepdims=True) + 1e-20  # of rounding, or of nothing
        return agree / np.sqrt(np.maximum(norm, least))

    def about(self, tiles: np.ndarray) -> np.ndarray:
        """(K, 2): highest scores of tiles (K, 64, 64), plain and mirrored, to a few percent.

        Less work: the pilot's share of the energy is taken for the same at all phases.
        """
        chips = boxes(tiles)
        spectrum = scipy.fft.rfft2(chips)
        agree = [_correlated(spectrum, signs) for signs in (self._signs, self._mirrored)]
        norm = np.sqrt(np.einsum("kyx,kyx->k", chips, chips) / 8 + 1e-20)
        return np.stack([values.max((1, 2)) for values in agree], -1) / norm[:, None]


def _correlated(spectrum: np.ndarray, with_spectrum: np.ndarray) -> np.ndarray:
    return scipy.fft.irfft2(spectrum * with_spectrum, (SIDE, SIDE))


def boxes(tile: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 samples from each sample on: a chip at every phase."""
    rows = tile + np.roll(tile, -1, -2)
    return rows + np.roll(rows, -1, -1)


def chips_at(tile: np.ndarray, y: int, x: int) -> np.ndarray:
    """(32, 32) chips of a tile (64, 64) whose lattice begins at that sample."""
    return np.roll(boxes(tile), (-y, -x), (0, 1))[::2, ::2]
