"""Stage 2: how much a video changes from frame to frame, and where that is a cut.

A cut is one large change after which nothing goes back: a flash changes twice and is over. Faces
are looked for in the same pass (``tracks.py``), since decoding costs more than either.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.prepare.config import ShotConfig

SMALL = 24  # px of the picture that changes are measured in
AROUND = 12  # frames on both sides that tell what is usual
FLASH = 3  # frames that a flash may last


def small(frame_u8: np.ndarray) -> np.ndarray:
    """(SMALL, SMALL, 3) float32 in [0, 1], by areas."""
    from PIL import Image

    tiny = Image.fromarray(frame_u8).resize((SMALL, SMALL), Image.Resampling.BOX)
    return np.asarray(tiny, np.float32) / 255.0


def change(a: np.ndarray, b: np.ndarray) -> float:
    """Mean change between two small pictures, 0 to 1."""
    return float(np.abs(a - b).mean())


def cuts(cfg: ShotConfig, change_T: np.ndarray, across_T: np.ndarray) -> list[int]:
    """Frames that begin a new shot.

    ``change_T`` is the change from frame t - 1 to t (0 for the first), ``across_T`` that from frame
    t - 1 to t + ``FLASH``, which stays large where the old picture does not come back.
    """
    found = []
    flash = -FLASH - 1  # when the last one began
    for t in range(1, len(change_T)):
        around = np.r_[change_T[max(t - AROUND, 1) : t], change_T[t + 1 : t + 1 + AROUND]]
        usual = float(np.median(around)) if len(around) else 0.0
        least = max(cfg.least, cfg.times * usual)
        if change_T[t] <= least:
            continue
        if across_T[t] <= 0.5 * change_T[t]:
            flash = t
        elif t - flash > FLASH and change_T[t] == max(change_T[max(t - FLASH, 1) : t + FLASH + 1]):
            found.append(t)
    return found
