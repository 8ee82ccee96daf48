"""Blinks where the motion model leaves the eyes open for too long.

The lite motion model generates 6 to 12 blinks a minute; people who talk blink about 20 times (17 at
rest to 26 in conversation, Bentivoglio et al. 1997). Missing ones are
added as a renewal process: whenever the lids stayed open for a drawn interval, one blink with the
usual fast closing and slower opening. Blinks of the model itself stay and restart the interval.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.core.arkit import MOTION_INDEX
from vasa_jax.core.types import FPS

MEDIAN_INTERVAL_S, SPREAD = 3.0, 0.45  # of the log-normal interval between blinks
_LIDS = (MOTION_INDEX["eyeBlink_L"], MOTION_INDEX["eyeBlink_R"])
# Weights per frame of 40 ms: 80 ms down, shut for 80 ms, 160 ms up. Read from pictures a blink of
# people lasts 187 ms; with one shut frame less these lasted 150 ms.
_SHAPE = np.array([0.55, 1.0, 1.0, 1.0, 0.65, 0.3, 0.1], np.float32)
_CLOSED = 0.6


class Blinker:
    """Blinks of one stream, any number of frames at a time and without looking ahead.

    The same seed and motion give the same blinks. A blink of the model that begins while one of
    ours is on its way joins it.
    """

    def __init__(self, *, seed: int):
        self._rng = np.random.default_rng((seed, 0xB11C))
        self._wait = self._interval() // 2  # frames until one is due
        self._phase: int | None = None  # frame of the blink under way

    def _interval(self) -> int:
        spread = float(np.exp(SPREAD * self._rng.normal()))
        return max(1, round(FPS * MEDIAN_INTERVAL_S * spread))

    def __call__(self, motion_TM: np.ndarray) -> np.ndarray:
        """The next frames (T, 54) with blinks; the input is not changed."""
        motion, lids = np.array(motion_TM, np.float32), list(_LIDS)
        for row in motion:
            if row[lids].max() > _CLOSED and self._phase is None:
                self._wait = self._interval()
                continue
            if self._phase is None and self._wait <= 0:
                self._phase = 0
            if self._phase is None:
                self._wait -= 1
                continue
            row[lids] = np.maximum(row[lids], _SHAPE[self._phase])
            self._phase += 1
            if self._phase == len(_SHAPE):
                self._phase, self._wait = None, self._interval()
        return motion
