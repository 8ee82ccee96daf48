"""Encoded sound for tests, as bytes."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import soundfile


def tone(rate: int, seconds: float, hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """(S, C) float32 sine of amplitude 0.4."""
    t = np.arange(round(rate * seconds)) / rate
    return np.repeat((0.4 * np.sin(2 * np.pi * hz * t))[:, None], channels, 1).astype(np.float32)


def by_soundfile(samples: np.ndarray, rate: int, format: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def by_av(
    samples: np.ndarray,
    rate: int,
    codec: str,
    format: str,
    *,
    layout: str | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """``samples`` (S, C) encoded; ``layout`` as FFmpeg names it."""
    file = io.BytesIO()
    layout = layout or {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(file, "w", format=format, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.layout = layout
        convert = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for part in convert.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()
