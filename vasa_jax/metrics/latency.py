"""How late pictures are: percentiles of times, and deadlines missed.

A *hop* is made of a few frames at once. Its *time* runs from the moment at which all sound that it
needs was there until its last picture is encoded; waiting for the sound is the declared latency and
not part of it. At R frames a second a hop of n frames has n / R seconds before the next one is due:
a longer time misses the deadline of that rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RATES_FPS = (25, 40, 60)


def percentiles(ms: Sequence[float] | np.ndarray) -> dict[str, float]:
    """p50, p95, p99 and the largest of times in ms; empty when there are none."""
    values = np.asarray(ms, np.float64)
    if not values.size:
        return {}
    table = {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}
    return table | {"max": float(values.max())}


def hop_times(after_sound_ms: Sequence[float], frames: int) -> np.ndarray:
    """Time of each hop of ``frames`` frames, ms, from that of each frame, in their order.

    A hop is ready with its last frame. A last hop that is not full is left out.
    """
    whole = len(after_sound_ms) // frames * frames
    return np.asarray(after_sound_ms[:whole], np.float64).reshape(-1, frames).max(1)


def missed(hop_ms: Sequence[float] | np.ndarray, frames: int, rate_fps: float) -> float:
    """Share of hops of ``frames`` frames that take longer than they last at ``rate_fps``."""
    values = np.asarray(hop_ms, np.float64)
    return float((values > frames * 1e3 / rate_fps).mean()) if values.size else 0.0


def most_in_time(late_share: Sequence[float], allowed: float) -> int:
    """Streams that run at once in time: ``late_share[i]`` frames are late with i + 1 of them.

    The largest count before the first that is late more often than ``allowed``.
    """
    count = 0
    for share in late_share:
        if share > allowed:
            break
        count += 1
    return count
