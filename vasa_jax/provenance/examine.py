"""A file's mark: videos stretch by stretch, pictures at once.

A stretch is the mean of up to 125 frames. Each is searched on its own, so that a marked part of a
longer video is found; what was found once is tried first in the stretches that follow, and their
tiles add up to read the payload.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS
from vasa_jax.provenance import detector
from vasa_jax.provenance.detector import BOUND, Found
from vasa_jax.provenance.pattern import PUBLIC_KEY
from vasa_jax.provenance.payload import Payload

STRETCH = 125  # frames
SHORTEST = 12  # frames; a shorter rest of a video is left out
MIN_SIDE = 24  # px

Progress = Callable[[int, int], None]  # frames read, in all (0: unknown)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkVerdict:
    """What was found in the pixels of one file."""

    found: bool
    false_alarm: float  # bound on the probability that a file without the mark scores as high
    score: float  # the best stretch's, see detector.py
    payload: Payload | None  # None: not found, or not readable
    frames: int
    size: tuple[int, int]  # width, height
    stretches: int
    marked: tuple[tuple[float, float], ...]  # seconds, from and to, of stretches with the mark

    def to_json(self) -> dict[str, Any]:
        table = dataclasses.asdict(self)
        table["payload"] = None if self.payload is None else self.payload.to_json()
        return table


Stretch = tuple[int, int, np.ndarray]  # first frame, number, mean (Y, X, 3) or (Y, X)


def examine_pictures(
    frames: Iterator[np.ndarray], *, key: bytes = PUBLIC_KEY, wide: bool = False
) -> MarkVerdict:
    """The verdict on frames uint8 (Y, X, 3) of one size, 25 per second, or on a single picture.

    Raises UserError when they are smaller than 24 px.
    """
    return examine_stretches(stretches_of(frames), key=key, wide=wide)


def examine_stretches(
    means: Iterable[Stretch], *, key: bytes = PUBLIC_KEY, wide: bool = False
) -> MarkVerdict:
    """The same on what ``stretches_of`` made of the frames."""
    best: Found | None = None
    known: Found | None = None  # the first that was sure
    tile = np.zeros(())
    total = stretches = searches = 0
    alarms = np.inf  # of the best search; looks at a place that one of them found add nothing
    marked = []
    for start, count, mean in means:
        if min(mean.shape[:2]) < MIN_SIDE:
            raise UserError(f"pictures of {mean.shape[1]}x{mean.shape[0]} px are too small to tell")
        size = mean.shape[1], mean.shape[0]
        total, stretches = start + count, stretches + 1
        here = None
        if known is not None:
            here = detector.look(mean, known.geometry, key=key)
            if here.false_alarm > BOUND:
                here = None
        if here is None:
            here = detector.find(mean, key=key, wide=wide)
            searches += 1
            alarms = min(alarms, here.alarms)
        if here.false_alarm <= BOUND:
            marked.append((start / FPS, (start + count) / FPS))
            if known is None:
                known, tile = here, here.tile
            elif here.geometry == known.geometry:
                tile = tile + here.tile
        if best is None or here.score > best.score:
            best = here
    if best is None:
        raise UserError("there are no pictures")
    bound = min(1.0, searches * alarms)
    found = bound <= BOUND
    payload = None
    if found:
        payload = detector.read_payload(best.tile, key) or detector.read_payload(tile, key)
    return MarkVerdict(
        found=found, false_alarm=bound, score=round(best.score, 3), payload=payload, frames=total,
        size=size, stretches=stretches, marked=tuple(marked) if found else (),
    )  # fmt: skip


def examine_file(
    path: str | Path,
    *,
    key: bytes = PUBLIC_KEY,
    wide: bool = False,
    progress: Progress | None = None,
) -> MarkVerdict:
    """The verdict on a picture or video of any common format. Raises UserError."""
    from vasa_jax.io.image import read_image

    if is_picture(path):
        return examine_pictures(iter([read_image(path)]), key=key, wide=wide)
    return examine_pictures(_read(path, progress), key=key, wide=wide)


def is_picture(path: str | Path) -> bool:
    """Whether a file is a still by its first bytes; a damaged one too. Raises UserError."""
    from PIL import Image

    from vasa_jax.io.atomic import existing_file

    try:
        with Image.open(existing_file(path, "video or image")) as image:
            return not getattr(image, "is_animated", False)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _read(path: str | Path, progress: Progress | None) -> Iterator[np.ndarray]:
    from vasa_jax.io.video import read_video

    total = _count(path) if progress is not None else 0
    for index, frame in enumerate(read_video(path)):
        yield frame
        if progress is not None:
            progress(index + 1, total)


def _count(path: str | Path) -> int:
    """Frames at 25 per second that a video promises to have, 0 when it does not say."""
    import av

    from vasa_jax.io.atomic import media_address
    from vasa_jax.runtime.places import typed

    try:
        with av.open(media_address(typed(path))) as container:
            return round((container.duration or 0) / av.time_base * FPS)
    except av.FFmpegError:
        return 0


def stretches_of(frames: Iterator[np.ndarray]) -> Iterator[Stretch]:
    """(first frame, number, mean float32 (Y, X, 3)); a change of size begins a new one."""
    start = count = 0
    total: np.ndarray | None = None
    for frame in frames:
        if total is not None and (count == STRETCH or total.shape != frame.shape):
            yield start, count, (total / count).astype(np.float32)
            start, count, total = start + count, 0, None
        if total is None:
            total = np.zeros(frame.shape, np.uint32)
        np.add(total, frame, out=total)
        count += 1
    if total is not None and (start == 0 or count >= SHORTEST):
        yield start, count, (total / count).astype(np.float32)
