"""The mark's pattern: secret-looking signs on a lattice of chips, tiled over the picture.

A *chip* is the lattice's cell, ``pitch`` px wide; a tile is 32 x 32 chips and repeats, so that a
crop keeps whole copies of all of it and a search needs only the phase within one tile. Half of the
chips are the *pilot*: their signs depend on the key alone, by which the detector finds scale and
phase. Each of the others carries one of the payload's 256 coded bits, two chips a bit, times a sign
of the key. Between the chips' centres the pattern is interpolated, so that its energy lies below
the frequencies that H.264 drops first; and each chip loses its neighbourhood's mean, since blotches
of equal signs are what an eye sees first, and the detector's high pass would not use them.

The pitch is 4 px up to a side of 1300 and grows slowly from there: fine enough for thousands of
chips and not to be seen, coarse enough to live through coding and halving. Until November 2026 it
was 3 px below 474 (``earlier_pitch_of``), which was lost when squares were halved. Signs come from
SHA-256 in counter mode, hence are the same for ever and everywhere.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np

from vasa_jax.provenance.payload import CODED_BITS, Payload, encode

# Anybody must be able to verify, so the key is no secret. Whoever needs one gives another.
PUBLIC_KEY = b"vasa_jax mark 1"
TILE = 32  # chips
MIN_PITCH, MAX_PITCH = 4, 8  # px
EARLIER_MIN_PITCH = 3  # px, of marks that still are to be found
GROWTH = 0.25  # exponent of the pitch by the picture's side
RMS = 2.0 / 3.0  # of the pattern
_BLOTCH = 2.0  # chips; standard deviation of the mean that is taken away


class Layout(NamedTuple):
    """What a key decides, (32, 32) each."""

    sign: np.ndarray  # int8, +-1
    pilot: np.ndarray  # bool
    bit: np.ndarray  # int, index of the coded bit; -1 on the pilot


def key_stream(key: bytes, what: str, count: int) -> np.ndarray:
    """(count,) uint32 from SHA-256 of key, purpose and counter."""
    blocks = [
        hashlib.sha256(b"%s|%s|%d" % (key, what.encode(), i)).digest()
        for i in range(-(-count // 8))
    ]
    return np.frombuffer(b"".join(blocks), ">u4")[:count].astype(np.uint32)


@functools.cache
def layout(key: bytes = PUBLIC_KEY) -> Layout:
    """Signs and roles of a tile's chips."""
    count = TILE * TILE
    sign = np.where(key_stream(key, "sign", count) & 1, 1, -1).astype(np.int8)
    order = np.argsort(key_stream(key, "role", count), kind="stable")
    bit = np.full(count, -1)
    data = order[count // 2 :]
    bit[data] = np.arange(len(data)) % CODED_BITS
    shape = TILE, TILE
    return Layout(sign.reshape(shape), (bit < 0).reshape(shape), bit.reshape(shape))


def chips(payload: Payload, key: bytes = PUBLIC_KEY) -> np.ndarray:
    """(32, 32) float32 of +-1: one tile that says ``payload``."""
    sign, pilot, bit = layout(key)
    said = 2.0 * encode(payload)[bit] - 1.0
    return (sign * np.where(pilot, 1.0, said)).astype(np.float32)


def pitch_of(height: int, width: int) -> int:
    """Whole px per chip for a picture of that size."""
    return int(np.clip(round(natural_pitch(min(height, width))), MIN_PITCH, MAX_PITCH))


def earlier_pitch_of(height: int, width: int) -> int:
    """What it was in the first marks."""
    return int(np.clip(round(natural_pitch(min(height, width))), EARLIER_MIN_PITCH, MAX_PITCH))


def natural_pitch(side: float) -> float:
    """The rule behind both, without bounds: 3 px at 256, growing with the fourth root."""
    return 3.0 * float((side / 256.0) ** GROWTH)


def pattern(payload: Payload, height: int, width: int, key: bytes = PUBLIC_KEY) -> np.ndarray:
    """(height, width) float32 of root mean square ``RMS`` over a tile: what is to be added."""
    tile, pitch = _without_blotches(chips(payload, key)), pitch_of(height, width)
    whole = _interpolation(TILE * pitch, pitch)
    tile *= RMS / np.sqrt(np.mean((whole @ tile @ whole.T) ** 2))
    rows, columns = _interpolation(height, pitch), _interpolation(width, pitch)
    return (rows @ tile @ columns.T).astype(np.float32)


def _without_blotches(tile: np.ndarray) -> np.ndarray:
    """A tile less its Gaussian mean, circular."""
    frequency = np.fft.fftfreq(TILE)
    square = frequency[:, None] ** 2 + frequency[None, : TILE // 2 + 1] ** 2
    mean = np.exp(-2.0 * (np.pi * _BLOTCH) ** 2 * square)
    return np.fft.irfft2(np.fft.rfft2(tile) * (1.0 - mean), tile.shape).astype(np.float32)


def _interpolation(length: int, pitch: int) -> np.ndarray:
    """(length, 32): how much of each chip of the repeated tile is in each pixel."""
    at = (np.arange(length) + 0.5) / pitch - 0.5
    first = np.floor(at).astype(int)
    weight = at - first
    out = np.zeros((length, TILE), np.float32)
    rows = np.arange(length)
    out[rows, first % TILE] = 1.0 - weight
    out[rows, (first + 1) % TILE] = weight
    return out
