"""Stage 7: is it sharp, is it a face that can be learned from, and how much is said in it?"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.data.records import Record
from vasa_jax.face.find import quality as faces
from vasa_jax.metrics.image import luma, sharpness
from vasa_jax.prepare.looks import looks

LOOKS = 5  # frames of a clip that are looked at
PAUSE_DB = -25.0  # below the clip's own loud frames a frame is a pause
NOTHING_DB = -60.0  # of full scale: nothing is heard


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """What is refused."""

    detail: float = 0.10  # least share of contrast that is finer than half the resolution
    turned_deg: float = 60.0  # most that a head may be turned to the side, median
    bits_per_pixel: float = 0.01  # least of the source


def quality(cfg: QualityConfig, crop: Record) -> dict[str, Any]:
    """``result`` with numbers, or ``refused`` with them and a reason.

    Emitted: ``detail`` and ``sharpness`` of the face (median over some frames), ``turned`` in
    degrees, ``spoken``, the share of frames that are not pauses. Music is not told apart: where
    nobody's mouth follows it, ``sync`` refuses it.
    """
    pictures, landmarks = looks(crop, LOOKS)
    found = []
    for picture, points in zip(pictures, landmarks, strict=True):
        face = _face(picture, points)
        found.append((detail(face), sharpness(face)))
    fine, sharp = np.median(found, axis=0)
    turned = float(np.median([abs(faces.turned(points)) for points in landmarks]))
    told = {
        "detail": round(float(fine), 4), "sharpness": round(float(sharp), 4),
        "turned": round(turned, 1), "spoken": round(spoken(crop.arrays["samples"]), 3),
    }  # fmt: skip
    reason = ""
    if fine < cfg.detail:
        reason = "soft: it has no detail finer than half its resolution"
    elif turned > cfg.turned_deg:
        reason = f"seen from the side ({turned:.0f} degrees)"
    elif crop.meta["bits_per_pixel"] < cfg.bits_per_pixel:
        reason = f"its source was squeezed to {crop.meta['bits_per_pixel']:.3f} bits per pixel"
    return {"refused": reason, "numbers": told} if reason else {"result": told}


def _face(picture_u8: np.ndarray, points_L3: np.ndarray) -> np.ndarray:
    """The face's box of a square picture."""
    xy = points_L3[:468, :2] * len(picture_u8)
    (x0, y0), (x1, y1) = xy.min(0), xy.max(0)
    x0, y0, x1, y1 = (int(np.clip(v, 0, len(picture_u8))) for v in (x0, y0, x1, y1))
    return picture_u8[y0:y1, x0:x1]


def detail(image: np.ndarray) -> float:
    """Share of contrast that is lost when a picture is halved and doubled again.

    Contrast is what differs from the picture blurred by 8 px. A picture that was enlarged by two
    or more has none of it left.
    """
    y = luma(image)
    height, width = (n // 2 * 2 for n in y.shape)
    y = y[:height, :width]
    halved = y.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    doubled = gaussian_filter(np.kron(halved, np.ones((2, 2))), 0.7)
    lost = y - doubled
    # The filter takes more than halving does; what it takes of a smooth picture is no detail.
    lost -= gaussian_filter(lost, 1.5)
    contrast = y - gaussian_filter(y, 8.0)
    return float(np.sqrt(np.square(lost).mean() / max(np.square(contrast).mean(), 1e-9)))


def spoken(samples_S: np.ndarray) -> float:
    """Share of frames that are no pause, beside the clip's own loud ones."""
    level = level_db(samples_S)
    return float((level > max(np.percentile(level, 95) + PAUSE_DB, NOTHING_DB)).mean())


def level_db(samples_S: np.ndarray) -> np.ndarray:
    """Level (T,) of each frame of int16 sound in dB of full scale."""
    whole = len(samples_S) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    frames = samples_S[:whole].reshape(-1, SAMPLES_PER_FRAME).astype(np.float64) / 32767
    return 10 * np.log10(np.square(frames).mean(1) + 1e-12)
