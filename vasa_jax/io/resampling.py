"""Sound at another rate."""

from __future__ import annotations

import numpy as np


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(S,) or (S, C) at ``rate`` Hz as float32 at ``new_rate`` Hz, ceil(S * new / old) long."""
    if rate == new_rate:
        return np.ascontiguousarray(samples, np.float32)
    import soxr

    out = soxr.resample(np.ascontiguousarray(samples, np.float32), rate, new_rate, quality="HQ")
    length = -(-samples.shape[0] * new_rate // rate)
    # soxr may be a sample short or long, depending on the ratio; the clock must not depend on it.
    out = out[:length]
    if out.shape[0] < length:
        out = np.pad(out, [(0, length - out.shape[0])] + [(0, 0)] * (out.ndim - 1))
    return np.clip(out, -1.0, 1.0)
