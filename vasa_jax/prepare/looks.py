"""Some pictures of a clip, spread over it, with their landmarks: what judges of a clip look at."""

from __future__ import annotations

import numpy as np

from vasa_jax.data.records import Record, landmarks_of
from vasa_jax.io import clip_video


def looks(crop: Record, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, Y, X, 3) uint8 and landmarks (count, 478, 3) in sides of the crop."""
    landmarks = landmarks_of(crop)
    numbers = np.linspace(0, len(landmarks) - 1, count).round().astype(int)
    return clip_video.frames_at(crop.arrays["video"], numbers.tolist()), landmarks[numbers]
