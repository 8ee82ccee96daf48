"""Animated pictures, which play where a video would want a player: in a page, a chat, a README."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import replacing

SUFFIXES = (".webp", ".gif")


def write_animation(
    path: str | os.PathLike[str], frames: Sequence[np.ndarray], *, fps: float
) -> None:
    """Writes uint8 (Y, X, 3) frames of one size as WebP or GIF that plays for ever.

    GIF counts hundredths of a second, so ``fps`` is met there to the nearest of them. Raises
    UserError on an unknown suffix, without frames, or when the file can't be written.
    """
    import imageio.v3

    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in SUFFIXES:
        raise UserError(f"can't write {os.fspath(path)}: name it {' or '.join(SUFFIXES)}")
    if not len(frames):
        raise UserError(f"can't write {os.fspath(path)}: there is no frame to show")
    options: dict[str, Any] = {"quality": 80, "method": 2} if suffix == ".webp" else {}
    with replacing(path) as partial:
        imageio.v3.imwrite(
            partial, np.stack(frames), plugin="pillow", duration=1000.0 / fps, loop=0, **options
        )
