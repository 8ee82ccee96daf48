"""Which loudspeaker a channel is meant for, and mixes to two channels and to one.

Arrays of sound carry no names: up to eight channels stand in the order of ``SPEAKERS``, which is
that of a wav file. The mixes are those of ITU-R BS.775: the centre counts in full where one channel
is left and at -3 dB in each of two, surrounds come 3 dB lower, the bass channel is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPEAKERS = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
_3_DB = 0.5**0.5
# Shares in left, right and in a single channel.
_SHARES = {
    "FC": (_3_DB, _3_DB, 1.0),
    "BC": (0.5, 0.5, 0.5),
    "LFE": (0.0, 0.0, 0.0),
    "LFE2": (0.0, 0.0, 0.0),
} | {
    name: share
    for side in (0, 1)
    for names, share in (
        (("FL", "FLC", "DL", "WL"), (1.0 - side, float(side), _3_DB)),
        (("BL", "SL", "TFL", "TBL", "SDL", "TSL"), ((1 - side) * _3_DB, side * _3_DB, 0.5)),
    )
    for name in (n if side == 0 else n.replace("L", "R", 1) for n in names)
}
_UNKNOWN = (_3_DB, _3_DB, 1.0)


def in_order(names: Sequence[str]) -> bool:
    """Whether channels of these names may go without them: as in ``SPEAKERS``, or never named."""
    if len(names) <= 2 or not all(name in _SHARES for name in names):
        return True
    usual = SPEAKERS.get(len(names))
    return usual is not None and np.array_equal(_shares(len(names), names), _shares(len(names)))


def to_stereo(samples: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """(S, C) -> (S, 2) float32; one or two channels are kept as left and right.

    ``names`` are the channels' loudspeakers, by default those of ``SPEAKERS``. A mix beyond full
    scale is turned down as a whole.
    """
    channels = samples.shape[1]
    if channels <= 2:
        return np.repeat(samples, 2, axis=1) if channels == 1 else samples
    return _within_scale(samples @ _shares(channels, names)[:, :2])


def to_mono(samples: np.ndarray) -> np.ndarray:
    """(S, C) or (S,) -> (S,) float32: what one loudspeaker would play of all channels.

    Two channels give their mean; where channels cancel each other, or only one plays that a mix
    leaves out, the loudest stands for all.
    """
    if samples.ndim == 1:
        return samples.astype(np.float32, copy=False)
    channels = samples.shape[1]
    if channels <= 2:
        mono = samples.mean(axis=1, dtype=np.float32)
    else:
        mono = _within_scale(samples @ _shares(channels)[:, 2])
    power = np.square(samples).mean(axis=0, dtype=np.float64)
    # Wired in opposite phase, the mean of a stereo pair is silence.
    if np.square(mono).mean(dtype=np.float64) < 1e-3 * power.max():
        return np.ascontiguousarray(samples[:, int(power.argmax())])
    return mono


def _shares(channels: int, names: Sequence[str] | None = None) -> np.ndarray:
    """(C, 3) float32: each channel's shares in left, right and mono."""
    names = names or SPEAKERS.get(channels) or ("",) * channels
    return np.array([_SHARES.get(name, _UNKNOWN) for name in names], np.float32)


def _within_scale(samples: np.ndarray) -> np.ndarray:
    peak = float(np.abs(samples).max(initial=0.0))
    return samples / np.float32(peak) if peak > 1.0 else samples
