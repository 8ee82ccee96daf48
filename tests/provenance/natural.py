"""Pictures with the statistics of photographs, made without any."""

from __future__ import annotations

import numpy as np


def natural_picture(height: int, width: int, seed: int, contrast: float = 45.0) -> np.ndarray:
    """uint8 (Y, X, 3): a spectrum that falls as 1/f, flat ground on one side, some edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / np.maximum(frequency, 1 / width)
    noise = np.fft.irfft2(spectrum, (height, width))
    y, x = np.mgrid[:height, :width]
    texture = np.clip((x / width - 0.25) * 4, 0, 1)  # flat ground at the left
    picture = 120 + contrast * texture * noise / noise.std() + 20 * y / height
    picture[height // 3 : height // 2, width // 3 : width // 2] += 50
    grey = np.clip(picture, 0, 255)[..., None]
    return np.clip(grey * np.array([1.0, 0.95, 0.85]), 0, 255).astype(np.uint8)
