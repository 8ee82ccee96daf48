"""Stage 6: does the sound belong to the mouth, and how late is it? By our own judge."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.data.records import Record, landmarks_of
from vasa_jax.io.audio import shifted
from vasa_jax.metrics import sync_net
from vasa_jax.prepare.quality import level_db

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
    if not crop.meta["sound"] or np.percentile(level_db(crop.arrays["samples"]), 95) < SILENT_DB:
        return {"result": {"speech": False, "lag": 0}}
    samples = crop.arrays["samples"].astype(np.float32) / 32767
    found = sync_net.load().measure(landmarks_of(crop), samples)
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


def moved(samples_S: np.ndarray, lag: int) -> np.ndarray:
    """Sound that fits the mouth: later by ``lag`` frames, silence where there is none."""
    there = shifted(samples_S, lag * SAMPLES_PER_FRAME)[: len(samples_S)]
    return np.pad(there, (0, len(samples_S) - len(there)))
