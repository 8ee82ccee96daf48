"""Stage 6: does the sound belong to the mouth, and how late is it? By our own judge."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vasa_jax.data.records import LANDMARK_STEP, Record
from vasa_jax.metrics import sync_net

SILENT_DB = -55.0  # loudest frames of a clip (95th percentile) below which nobody speaks


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """When a clip is believed; experiments/2026-12-01_prepare says where the numbers are from."""

    sure: float = 0.18  # confidence of the judge from which on its lag is one
    margin: float = 0.08  # that it must be above the same with the sound moved round
    farthest: int = 5  # frames that sound is moved by at most


def sync(cfg: SyncConfig, crop: Record) -> dict[str, Any]:
    """``result`` with lag (frames, positive: the mouth is late) and confidence, or ``refused``.

    Clips without a sound track, or in which nothing is heard, are kept with "speech" false: their
    pictures are as good as others.
    """
    if not crop.meta["sound"] or loud_db(crop.arrays["samples"]) < SILENT_DB:
        return {"result": {"speech": False, "lag": 0}}
    landmarks = crop.arrays["landmarks"].astype(np.float32) * LANDMARK_STEP
    samples = crop.arrays["samples"].astype(np.float32) / 32767
    found = sync_net.load().measure(landmarks, samples)
    lag, sure = int(found["sync_net_lag"]), found["sync_net"]
    told = {"speech": True, "lag": lag, "confidence": round(sure, 4),
            "confidence_shifted": round(found["sync_net_shifted"], 4)}  # fmt: skip
    if not np.isfinite(sure) or sure < max(cfg.sure, found["sync_net_shifted"] + cfg.margin):
        return {
            "refused": f"the sound does not belong to the mouth (confidence {sure:.2f})",
            **told,
        }
    if abs(lag) > cfg.farthest:
        return {
            "refused": f"the sound is {abs(lag)} frames {'early' if lag > 0 else 'late'}",
            **told,
        }
    return {"result": told}


def loud_db(samples_S: np.ndarray) -> float:
    """Level of the louder frames of a clip in dB of full scale."""
    frames = samples_S[: len(samples_S) // 640 * 640].reshape(-1, 640).astype(np.float64) / 32767
    power = np.square(frames).mean(1)
    return float(10 * np.log10(np.percentile(power, 95) + 1e-12))


def moved(samples_S: np.ndarray, lag: int) -> np.ndarray:
    """Sound that fits the mouth: later by ``lag`` frames, silence where there is none."""
    out, shift = np.zeros_like(samples_S), lag * 640
    if shift >= 0:
        out[shift:] = samples_S[: len(out) - shift]
    else:
        out[:shift] = samples_S[-shift:]
    return out
