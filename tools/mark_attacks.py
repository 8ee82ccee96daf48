"""What happens to videos on their way: the attacks of ``tools/bench_mark``, in memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS, FPS = 5, 25
CRF = 23  # of attacks that are no coding themselves
GIF_RATE = 12  # frames a second

Attack = Callable[[np.ndarray], np.ndarray]


def read(source: str | Path | io.BytesIO) -> np.ndarray:
    """All frames, uint8 (T, Y, X, 3)."""
    import av

    if isinstance(source, io.BytesIO):
        source.seek(0)
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as container:
        container.streams.video[0].thread_type = "NONE"
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def coded(
    frames: np.ndarray, crf: int, codec: str = "libx264", preset: str = "medium", rate: int = FPS
) -> np.ndarray:
    """Frames after lossy coding, by default as ffmpeg's; sides cut to even numbers."""
    options = {"crf": str(crf), "preset": preset}
    if codec == "libx265":
        options |= {"x265-params": "log-level=none:pools=1:frame-threads=1"}
    return _through(frames, "mp4", codec, options, rate=rate)


def _through(
    frames: np.ndarray, container_format: str, codec: str, options: dict[str, str],
    *, rate: int = FPS, bits: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Frames after a codec with these options, of ``bits`` a second where that is given."""
    import av

    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    out = io.BytesIO()
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.options = options
        if bits is not None:
            stream.bit_rate = bits
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return read(out)


def each(frames: np.ndarray, change: Attack) -> np.ndarray:
    """All frames, changed one by one."""
    return np.stack([change(frame) for frame in frames])


def _vp9(frames: np.ndarray, bits: int) -> np.ndarray:
    options = {"deadline": "good", "cpu-used": "4"}
    return _through(frames, "webm", "libvpx-vp9", options, bits=bits)


def _gif(frames: np.ndarray) -> np.ndarray:
    """As an animation with a palette of its own for each picture."""
    chosen = frames[np.arange(len(frames) * GIF_RATE // FPS) * FPS // GIF_RATE]
    pictures = [Image.fromarray(frame).quantize(256) for frame in chosen]
    out = io.BytesIO()
    pictures[0].save(
        out, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / GIF_RATE)
    )
    return read(out)


def _scaled(frames: np.ndarray, scale: float) -> np.ndarray:
    size = tuple(round(n * scale / 2) * 2 for n in (frames.shape[2], frames.shape[1]))
    return each(
        frames, lambda f: np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC))
    )


def _cropped(frames: np.ndarray, side: int) -> np.ndarray:
    """Without a tenth off one side."""
    height, width = frames.shape[1:3]
    rows, columns = round(0.1 * height), round(0.1 * width)
    return (frames[:, rows:], frames[:, :-rows], frames[:, :, columns:], frames[:, :, :-columns])[
        side
    ]


def _middle(frames: np.ndarray) -> np.ndarray:
    """The middle four fifths of both sides."""
    rows, columns = (round(0.1 * n) for n in frames.shape[1:3])
    return frames[:, rows:-rows, columns:-columns]


def _barred(frames: np.ndarray) -> np.ndarray:
    """With a black bar over the lower third."""
    out = frames.copy()
    out[:, 2 * frames.shape[1] // 3 :] = 0
    return out


def _mirrored(frames: np.ndarray) -> np.ndarray:
    return frames[:, :, ::-1]


def turned(frames: np.ndarray, degrees: float, zoom: float = 1.0) -> np.ndarray:
    """Turned about the middle in a canvas of the same size, black where nothing is."""

    def change(frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        image = Image.fromarray(frame).rotate(degrees, Image.Resampling.BICUBIC)
        if zoom > 1.0:
            cut_x, cut_y = (n * (1.0 - 1.0 / zoom) / 2 for n in (width, height))
            box = (cut_x, cut_y, width - cut_x, height - cut_y)
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        return np.asarray(image)

    return each(frames, change)


def _toned(frames: np.ndarray, gamma: float, offset: float) -> np.ndarray:
    table = np.clip(255 * (np.arange(256) / 255) ** gamma + offset, 0, 255).round().astype(np.uint8)
    return table[frames]


def _filmed(frames: np.ndarray) -> np.ndarray:
    """As if filmed off a screen: a little larger, blurred, with noise of its own each frame."""
    from PIL import ImageFilter

    rng = np.random.default_rng(0)
    size = round(frames.shape[2] * 1.1), round(frames.shape[1] * 1.1)

    def change(frame: np.ndarray) -> np.ndarray:
        image = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.0)), np.float32)
        return np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)

    return each(frames, change)


def attacks(index: int) -> dict[str, Attack]:
    """By name; each takes the frames of the file as it was written and gives those that remain.

    ``index`` is the clip's: sides that are cropped, and directions of turning, take turns.
    """
    side, sign = index % 4, 1 if index % 2 else -1
    return {
        "as written (H.264 crf 18)": lambda x: x,
        "H.264 crf 23": lambda x: coded(x, 23),
        "H.264 crf 28": lambda x: coded(x, 28),
        "H.264 crf 28, veryfast": lambda x: coded(x, 28, preset="veryfast"),
        "H.265 crf 28": lambda x: coded(x, 28, "libx265"),
        "scaled by 0.5": lambda x: coded(_scaled(x, 0.5), CRF),
        "scaled by 0.5, veryfast": lambda x: coded(_scaled(x, 0.5), CRF, preset="veryfast"),
        "scaled by 0.75": lambda x: coded(_scaled(x, 0.75), CRF),
        "scaled by 1.5": lambda x: coded(_scaled(x, 1.5), CRF),
        "10 % cropped off a side": lambda x: coded(_cropped(x, side), CRF),
        "two generations (crf 23, 26)": lambda x: coded(coded(x, 23, preset="veryfast"), 26),
        "gamma 0.8, 20 levels darker": lambda x: coded(_toned(x, 0.8, -20), CRF),
        "gamma 1.25, 20 levels brighter": lambda x: coded(_toned(x, 1.25, 20), CRF),
        "25 to 30 frames a second": lambda x: coded(
            x[np.arange(len(x) * 6 // 5) * 5 // 6], CRF, rate=30
        ),
        "filmed off a screen (blur, noise)": lambda x: coded(_filmed(x), CRF),
        "one second of it": lambda x: coded(x[50:75], CRF),
        "H.264 crf 32": lambda x: coded(x, 32),
        "H.265 crf 32": lambda x: coded(x, 32, "libx265"),
        "VP9 at 150 kbit/s": lambda x: _vp9(x, 150_000),
        "GIF of 12 frames a second": _gif,
        "black bar over a third": lambda x: coded(_barred(x), CRF),
        "cropped to the middle 80 %": lambda x: coded(_middle(x), CRF),
        "mirrored": lambda x: coded(_mirrored(x), CRF),
        "mirrored, H.264 crf 28": lambda x: coded(_mirrored(x), 28),
        "mirrored, scaled by 0.5": lambda x: coded(_scaled(_mirrored(x), 0.5), CRF),
        "mirrored, 10 % cropped off a side": lambda x: coded(_mirrored(_cropped(x, side)), CRF),
        "turned by 1 degree": lambda x: coded(turned(x, sign), CRF),
        "turned by 2 degrees": lambda x: coded(turned(x, -2 * sign), CRF),
        "turned by 3 degrees": lambda x: coded(turned(x, 3 * sign), CRF),
        "turned by 3 degrees, H.264 crf 28": lambda x: coded(turned(x, -3 * sign), 28),
        "turned by 1.5 degrees, zoomed by 1.06": lambda x: coded(turned(x, 1.5 * sign, 1.06), CRF),
        "mirrored, turned by 2 degrees": lambda x: coded(turned(_mirrored(x), 2 * sign), CRF),
    }
