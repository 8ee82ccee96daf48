"""What an open mouth shows: light and dark, detail, and colours that no mouth has.

Teeth before a dark throat are what a talking mouth is recognised by; a painter that does not know
which of the two it sees makes an even grey, and one that has seen few mouths makes coloured specks.
All values are of the pixels between the inner lips in a 256 px head square, in frames whose mouth
is open, and mean something only beside those of real people.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion, gaussian_filter

from vasa_jax.metrics.image import luma
from vasa_jax.metrics.sync import lip_aperture

# Inner lips of MediaPipe's mesh, in their order around the mouth.
AROUND = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
OPEN = 0.06  # lip aperture, in eye distances, from which on a mouth counts as open
FEWEST_PX = 30  # inside of it; the outermost pixel, which may be lip, does not count
ODD_LEVELS = 8  # of 255: so much greener or bluer than red is no flesh and no tooth


def inside(square_u8: np.ndarray, landmarks_L3: np.ndarray) -> np.ndarray:
    """Mask (Y, X) of what lies between the inner lips, without its outermost pixel."""
    mask = Image.new("1", square_u8.shape[1::-1])
    points = np.asarray(landmarks_L3)[list(AROUND), :2]
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return binary_erosion(np.asarray(mask))


def measure(squares: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Medians over the open mouths of head squares (uint8) and their landmarks (478, 3) px.

    ``mouth_contrast``: 95th less 5th percentile of luma inside, over the face's median luma;
    ``mouth_detail``: deviation of what is finer than two pixels, over the same;
    ``mouth_odd_hue``: share of pixels that are greener or bluer than red;
    ``mouth_open``: share of the squares whose mouth is open. {} without squares.
    """
    if not squares:
        return {}
    rows = []
    for square, landmarks in squares:
        if lip_aperture(landmarks[None])[0] < OPEN:
            continue
        mask = inside(square, landmarks)
        if mask.sum() < FEWEST_PX:
            continue
        light, colour = luma(square), square[mask].astype(np.float64)
        fine = gaussian_filter(light, 0.7) - gaussian_filter(light, 2.0)
        low, high = np.percentile(light[mask], (5, 95))
        x, y = np.asarray(landmarks)[:468, :2].T
        face = light[max(int(y.min()), 0) : int(y.max()), max(int(x.min()), 0) : int(x.max())]
        unit = max(float(np.median(face)), 1.0)
        odd = colour[:, 1:].max(-1) > colour[:, 0] + ODD_LEVELS
        rows.append(((high - low) / unit, float(fine[mask].std()) / unit, odd.mean()))
    known = {"mouth_open": len(rows) / len(squares)}
    if rows:
        contrast, detail, _ = np.median(rows, 0)
        odd_hue = float(np.mean([row[2] for row in rows]))
        known |= dict(mouth_contrast=contrast, mouth_detail=detail, mouth_odd_hue=odd_hue)
    return known
