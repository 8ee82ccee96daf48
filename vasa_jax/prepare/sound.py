"""The sound of a source, mono at 16 kHz, once per source: clips of it are read from the middle.

Sample 0 belongs to the first picture. Every decoded block lies where its own time says, so that a
hole in a track stays as long as it is; memory stays flat for files of any length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from vasa_jax.io.atomic import replacing
from vasa_jax.io.media import open_media

SLACK_S = 0.02  # that a block's time may be off before it counts as a hole or an overlap


def path_of(folder: Path, source: str) -> Path:
    """Where the sound of a source lies while its clips are made."""
    return folder / "work" / "sound" / f"{source}.s16"


def extract(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Writes the sound of ``row["path"]``, whole or not at all."""
    try:
        with replacing(path_of(folder, row["source"])) as part:
            samples = _write(Path(row["path"]), part)
    except UserError as error:
        return {"error": " ".join(str(error).split())}
    return {"result": {"samples": samples}}


def _write(path: Path, part: Path) -> int:
    import av

    start = _first_picture(path)
    end = 0  # samples written
    with open_media(path, "video") as container, part.open("wb") as file:
        stream = container.streams.audio[0]
        resampler: Any = None
        form: Any = None
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames)
            except (StopIteration, av.EOFError):
                break
            except av.FFmpegError:
                if form is None:
                    raise
                break  # a damaged end ends the sound
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if now != form:  # rate or channels change on the way
                resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
                form = now
            wanted = None if frame.pts is None else float(frame.pts * frame.time_base - start)
            for made in resampler.resample(frame):
                block = made.to_ndarray().reshape(-1)
                at = end if wanted is None else round(wanted * SAMPLE_RATE_HZ)
                wanted = None  # later blocks of a frame follow the first
                if abs(at - end) <= SLACK_S * SAMPLE_RATE_HZ:
                    at = end
                if at > end:
                    file.seek(2 * (at - end), 1)  # a hole reads as silence
                else:
                    block = block[end - at :]
                file.write(np.ascontiguousarray(block, "<i2").tobytes())
                end = max(end, at) + len(block)
    return end


def _first_picture(path: Path) -> Any:
    """When the first picture is shown, in seconds on the container's clock."""
    with open_media(path, "video") as container:
        frame = next(container.decode(container.streams.video[0]), None)
        return 0 if frame is None or frame.pts is None else frame.pts * frame.time_base


def part_of(folder: Path, source: str, start: int, frames: int) -> np.ndarray:
    """The sound of some frames, int16 (640 ``frames``,); silence where there is none."""
    path = path_of(folder, source)
    out = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    with path.open("rb") as file:
        file.seek(2 * start * SAMPLES_PER_FRAME)
        found = np.frombuffer(file.read(2 * len(out)), "<i2")
    out[: len(found)] = found
    return out
