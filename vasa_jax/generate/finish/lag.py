"""First-order lags: how a number follows another one frame by frame, without looking ahead."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vasa_jax.core.types import FPS

GLIDE_S = 0.15  # time constant towards a new value that is asked for
SLOW_S = 0.3  # controls own what is slower than this, the model what is faster


def share(seconds: float) -> float:
    """What a lag of this time constant covers of its way in one frame."""
    return 1.0 - math.exp(-1.0 / (FPS * seconds))


class Lag:
    """Numbers that follow others; they start where those are in the first frame."""

    def __init__(self, seconds: float):
        self._share = share(seconds)
        self.now: Any = None
        """Float32, of the shape of what is followed; None before the first frame."""

    def __call__(self, target: Any) -> Any:
        """The next frame's numbers, on their way to ``target``."""
        target = np.asarray(target, np.float32)
        if self.now is None:
            self.now = target.copy()
        self.now = self.now + (target - self.now) * self._share
        return self.now


class Settled:
    """Some numbers of a motion whose slow part becomes what is asked for.

    The model was asked through its condition token, too, and what it adds at higher frequency
    (saccades, sway) stays; this only removes a lasting offset from the number the user gave. What
    is asked for later than in the first frame is come to as slowly as the mean follows: the model
    turns at once, the mean still says where it was, and the two cancel; a quicker glide overshoots
    (experiments/2026-12-01_one_finish). What is let go is let go within ``GLIDE_S``.
    """

    def __init__(self) -> None:
        self._slow, self._weight, self._wanted = Lag(SLOW_S), Lag(GLIDE_S), Lag(SLOW_S)

    def __call__(self, own: np.ndarray, target: np.ndarray, on: Any) -> np.ndarray:
        """One frame: the model's own numbers (C,), those asked for, and how firmly, 0 to 1."""
        on = np.asarray(on, np.float32)
        slow, weight = self._slow(own), self._weight(on)
        if (on > 0).any():
            self._wanted(target)
        wanted = target if self._wanted.now is None else self._wanted.now
        if not on.any() and (weight < 1e-3).all():
            self._wanted.now = None  # let go: what is asked for next is not come to from here
        return own + (wanted - slow) * weight
