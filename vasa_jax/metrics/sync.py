"""Do the lips say what is heard? Measures on lip aperture and phonemes; no net to be trusted.

The measured curve is the gap between the inner lips from landmarks. The expected curve comes from
the sound alone (``phonemes.expected_aperture``). Both lose what is slower than a second, such as a
smile or the landmarks' drift with head pose, and are correlated at shifts of up to eight frames.
Real people reach about 0.4 in interviews and 0.7 in read sentences, since a mouth has freedom that
phonemes do not fix; a peak over 17 shifts is about 0.1 for sound that does not belong. So values
mean something only beside those of real people measured in the same way.

A closure is *hit* when, within one frame of the moment that p, b or m asks for it, the lips are as
close as they are in the most closed 28 % of the frames of speech. The number is chosen so that real
people hit about 90 % and the same moments moved at random about 43 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from vasa_jax.core.types import FPS
from vasa_jax.metrics.phonemes import BILABIAL, Phoneme, expected_aperture, lip_time

MAX_LAG_FRAMES = 8
DRIFT_SECONDS = 1.0
INNER_LIPS = ((13, 14), (82, 87), (312, 317))  # upper, lower: middle and a little to each side
OUTER_EYE_CORNERS = (33, 263)
CLOSED_PERCENTILE = 28.0
CLOSURE_TOLERANCE_FRAMES = 1
SPEECH_MARGIN_SECONDS = 0.1
SILENCE_MARGIN_SECONDS = 0.3  # from any phoneme; lips take this long to come to rest
MIN_SILENCE_FRAMES = 5
MIN_PHONEMES = 15  # below, a correlation is that of a word with itself


SYNC_KEYS = ("correlation", "lag_frames", "correlation_at_0", "correlation_shifted", "closures",
             "closures_chance")  # fmt: skip


def lip_aperture(landmarks_TL3: np.ndarray) -> np.ndarray:
    """(T,) gap of the inner lips over the distance of the outer eye corners; NaN stays NaN.

    The eye distance is taken in 3D, so that turning the head does not open the mouth.
    """
    lm = np.asarray(landmarks_TL3, np.float64)
    gaps = [np.linalg.norm(lm[:, a, :2] - lm[:, b, :2], axis=-1) for a, b in INNER_LIPS]
    a, b = OUTER_EYE_CORNERS
    return np.mean(gaps, 0) / np.maximum(np.linalg.norm(lm[:, a] - lm[:, b], axis=-1), 1e-9)


def fill(values_T: np.ndarray) -> np.ndarray:
    """NaN replaced by the line between their neighbours; all-NaN becomes zero."""
    ok = np.isfinite(values_T)
    if ok.all():
        return np.asarray(values_T, np.float64)
    if not ok.any():
        return np.zeros(len(values_T))
    at = np.arange(len(values_T))
    return np.interp(at, at[ok], values_T[ok])


def _steady(values_T: np.ndarray) -> np.ndarray:
    return values_T - gaussian_filter1d(values_T, DRIFT_SECONDS * FPS, mode="nearest")


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 1e-12 else 0.0


def lag_correlation(expected_T: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    """(17,) Pearson correlation at lags -8..8 frames; a positive lag means the mouth is late."""
    n = min(len(expected_T), len(measured_T))
    e, m = _steady(fill(expected_T[:n])), _steady(fill(measured_T[:n]))
    values = []
    for lag in range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1):
        if n - abs(lag) < 10:
            values.append(0.0)
        else:
            first, second = max(0, -lag), max(0, lag)
            values.append(_pearson(e[first : n - second], m[second : n - first]))
    return np.array(values)


def best_lag(correlations: np.ndarray) -> tuple[float, int]:
    """Highest correlation and its lag in frames."""
    i = int(np.argmax(correlations))
    return float(correlations[i]), i - MAX_LAG_FRAMES


def _frames_near(phonemes: list[Phoneme], num_frames: int, seconds: float) -> np.ndarray:
    near = np.zeros(num_frames, bool)
    for p in phonemes:
        middle = lip_time(p) * FPS
        near[max(0, int(middle - seconds * FPS)) : max(0, int(middle + seconds * FPS) + 1)] = True
    return near


def closures(
    aperture_T: np.ndarray, phonemes: list[Phoneme], *, lag: int = 0
) -> dict[str, float | int]:
    """How many of the p, b, m were made with closed lips, and how many would be by chance.

    Chance is the same count at every other frame of speech. ``hit_rate`` is NaN without p, b, m.
    """
    aperture = fill(aperture_T)
    num_frames = len(aperture)
    speech = np.roll(_frames_near(phonemes, num_frames, SPEECH_MARGIN_SECONDS), lag)
    at = np.array([lip_time(p) * FPS - 0.5 + lag for p in phonemes if p.symbol in BILABIAL])
    at = np.round(at[(at >= 0) & (at <= num_frames - 1)]).astype(int) if len(at) else at.astype(int)
    if not len(at) or not speech.any():
        return {"hit_rate": np.nan, "chance": np.nan, "count": 0}
    closed = np.percentile(aperture[speech], CLOSED_PERCENTILE)
    lowest = minimum_filter1d(aperture, 2 * CLOSURE_TOLERANCE_FRAMES + 1, mode="nearest")
    return {
        "hit_rate": float((lowest[at] <= closed).mean()),
        "chance": float((lowest[speech] <= closed).mean()),
        "count": len(at),
    }


def rest(aperture_T: np.ndarray, phonemes: list[Phoneme]) -> dict[str, float]:
    """The mouth while nobody speaks, relative to speech.

    ``ratio``: median aperture in silence over median aperture in speech. ``quiver``: mean change
    per frame in silence over that in speech. NaN when either is shorter than a fifth of a second.
    """
    aperture = fill(aperture_T)
    speech = _frames_near(phonemes, len(aperture), SPEECH_MARGIN_SECONDS)
    silence = ~_frames_near(phonemes, len(aperture), SILENCE_MARGIN_SECONDS)
    if min(speech.sum(), silence.sum()) < MIN_SILENCE_FRAMES:
        return {"ratio": np.nan, "quiver": np.nan, "frames": int(silence.sum())}
    change = np.abs(np.diff(aperture, prepend=aperture[:1]))
    # A change belongs to silence only when the frame before it was silent too.
    still = silence & np.roll(silence, 1)
    return {
        "ratio": float(np.median(aperture[silence]) / max(np.median(aperture[speech]), 1e-9)),
        "quiver": float(change[still].mean() / max(change[speech].mean(), 1e-9))
        if still.any()
        else np.nan,
        "frames": int(silence.sum()),
    }


def measure(
    landmarks_TL3: np.ndarray, phonemes: list[Phoneme], *, align: bool = False
) -> dict[str, Any]:
    """All sync values of one clip, from landmarks (T, 468 or more, 3) and its phonemes.

    With ``align`` closures are looked for at the clip's own best lag: for recordings whose sound is
    known to be off. With fewer than ``MIN_PHONEMES`` sync is NaN. Keys: ``correlation`` (peak over
    lags), ``lag_frames``, ``correlation_at_0``, ``correlation_shifted`` (mean peak with the sound
    cyclically shifted by 30, 50, 70 %), ``closures``, ``closures_chance``, ``num_closures``,
    ``rest_ratio``, ``rest_quiver``.
    """
    aperture = lip_aperture(landmarks_TL3)
    if len(phonemes) < MIN_PHONEMES:
        nothing = dict.fromkeys(SYNC_KEYS, float("nan"))
        return nothing | _rest(aperture, phonemes) | {"num_closures": 0}
    expected = expected_aperture(phonemes, len(aperture))
    curve = lag_correlation(expected, aperture)
    peak, lag = best_lag(curve)
    shifted = [
        best_lag(lag_correlation(np.roll(expected, round(q * len(expected))), aperture))[0]
        for q in (0.3, 0.5, 0.7)
    ]
    shut = closures(aperture, phonemes, lag=lag if align else 0)
    return {
        "correlation": peak,
        "lag_frames": lag,
        "correlation_at_0": float(curve[MAX_LAG_FRAMES]),
        "correlation_shifted": float(np.mean(shifted)),
        "closures": shut["hit_rate"],
        "closures_chance": shut["chance"],
        "num_closures": shut["count"],
        **_rest(aperture, phonemes),
    }


def _rest(aperture_T: np.ndarray, phonemes: list[Phoneme]) -> dict[str, float]:
    calm = rest(aperture_T, phonemes)
    return {"rest_ratio": calm["ratio"], "rest_quiver": calm["quiver"]}


def foreign_correlation(
    landmarks_TL3: np.ndarray, others: list[list[Phoneme]], *, most: int = 8
) -> float:
    """Mean peak correlation of this mouth with the sound of other recordings; NaN without any."""
    aperture = lip_aperture(landmarks_TL3)
    values = []
    for phonemes in others[:most]:
        if not phonemes:
            continue
        last = int(np.ceil(phonemes[-1].end * FPS))
        expected = expected_aperture(phonemes, max(last, 1))
        expected = np.resize(expected, len(aperture))
        values.append(best_lag(lag_correlation(expected, aperture))[0])
    return float(np.mean(values)) if values else float("nan")
