"""Short videos as bytes: what records keep of a clip's pictures, and pictures of it by number."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS
from vasa_jax.io.video import tag_colours, to_yuv


def encoded(frames: Iterable[np.ndarray], *, crf: int = 14, key_frames: int = 12) -> np.ndarray:
    """Pictures, (Y, X, 3) RGB or (Y, X) luma uint8 with even sides, as an MP4 file (N,) uint8.

    H.264 with a key frame every ``key_frames`` and no B-frames, so that any picture is near one
    that stands alone. By one thread: the same pictures give the same bytes.
    """
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream: Any = None
        for number, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=FPS)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {
                    "crf": str(crf), "preset": "veryfast", "bf": "0", "sc_threshold": "0",
                    "threads": "1",
                }  # fmt: skip
                context = stream.codec_context
                context.gop_size, context.time_base = key_frames, Fraction(1, FPS)
                tag_colours(context)
            kind = "rgb24" if frame.ndim == 3 else "gray"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=kind)
            picture = to_yuv(picture)
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        if stream is None:
            raise ValueError("a clip without pictures")
        container.mux(stream.encode(None))
    return np.frombuffer(target.getvalue(), np.uint8)


def decoded(blob: np.ndarray, *, kind: str = "rgb24") -> Iterator[np.ndarray]:
    """All pictures of ``encoded``: (Y, X, 3) uint8, or (Y, X) with ``kind`` "gray"."""
    import av

    try:
        with av.open(io.BytesIO(bytes(blob)), "r") as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format=kind)
    except av.FFmpegError as error:
        raise UserError(f"the video of a record can't be read: {error}") from error


def frames_at(blob: np.ndarray, numbers: Sequence[int], *, kind: str = "rgb24") -> np.ndarray:
    """Some pictures by number, (len(numbers), ...); decodes from the key frame before each.

    Raises UserError for a number that the clip has not, or one that can't be read.
    """
    import av

    found: dict[int, np.ndarray] = {}
    try:
        with av.open(io.BytesIO(bytes(blob)), "r") as container:
            stream: Any = container.streams.video[0]
            stream.thread_type = "NONE"
            step = 1 / (FPS * stream.time_base)  # ticks of a frame
            for number in sorted(set(int(n) for n in numbers)):
                container.seek(int(number * step), stream=stream, backward=True)
                for frame in container.decode(stream):
                    at = round((frame.pts or 0) / step)
                    if at == number:
                        found[number] = frame.to_ndarray(format=kind)
                    if at >= number:
                        break
    except av.FFmpegError as error:
        raise UserError(f"the video of a record can't be read: {error}") from error
    missing = [n for n in numbers if int(n) not in found]
    if missing:
        raise UserError(f"the video of a record has no picture {missing[0]}")
    return np.stack([found[int(n)] for n in numbers])
