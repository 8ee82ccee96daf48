"""What a live stream gives out, and what it has in hand until then."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np

from vasa_jax.core.types import FPS
from vasa_jax.generate.live.pictures import Drawn


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LiveFrame:
    """One frame of a stream."""

    index: int
    picture: np.ndarray  # uint8 (Y, X, 3); the one before when not ``drawn``
    sound: np.ndarray  # float32 (640,), 16 kHz: what is heard while the picture is shown
    drawn: bool
    speaking: bool  # somebody was speaking, as opposed to silence put in
    motion: np.ndarray  # (M,) driving motion
    ms: dict[str, float]  # what it waited for and what it cost, see ``LiveStream``

    @property
    def time(self) -> float:
        """Seconds on the stream's clock."""
        return self.index / FPS


@dataclasses.dataclass(eq=False)
class Made:
    """A hop between motion and delivery."""

    first: int
    began: float  # the clock when it was taken; dropped sound may set it anew since
    rows: np.ndarray  # (n, M)
    sound: np.ndarray  # (n, 640)
    said: np.ndarray  # (n,)
    pictures: list[asyncio.Future[Drawn] | None]
    ms: dict[str, float]
