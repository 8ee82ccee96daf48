"""Variations of recorded speech: speed, room, microphone, noise, level.

The same clip never sounds the same twice, which is what lets a few voices stand for all.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How sound is varied. Probabilities and ranges per clip."""

    gain_db: float = 15.0
    noise: float = 0.65
    snr_db: tuple[float, float] = (0.0, 30.0)
    babble: float = 0.25  # share of the noises that are other people's voices
    tilt: float = 0.7
    tilt_db: float = 9.0
    band: float = 0.15  # telephone-like or muffled
    reverb: float = 0.35
    saturate: float = 0.1
    speed: float = 0.5  # other speakers: sound and motion faster or slower, pitch with them
    speed_range: tuple[float, float] = (0.8, 1.25)


def _take(x: np.ndarray, start: int, length: int) -> np.ndarray:
    """``x[start : start + length]``, with zeros outside of it."""
    out = np.zeros(length, x.dtype)
    a, b = max(start, 0), min(start + length, len(x))
    if b > a:
        out[a - start : b - start] = x[a:b]
    return out


def sound_at(samples: np.ndarray, first: int, frames: int, speed: float) -> np.ndarray:
    """``frames`` frames of sound from frame ``first`` of a clip played ``speed`` times as fast."""
    want = frames * SAMPLES_PER_FRAME
    start = round(first * SAMPLES_PER_FRAME * speed)
    if speed == 1.0:
        return _take(samples, start, want).astype(np.float32) / 32767
    import soxr

    sound = _take(samples, start, int(np.ceil(want * speed)) + 8).astype(np.float32) / 32767
    sound = soxr.resample(sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
    return np.ascontiguousarray(sound[:want], np.float32)


def augment(
    samples: np.ndarray, cfg: AugmentConfig, rng: np.random.Generator, babble: Any = None
) -> np.ndarray:
    """A variation of one recording: room, microphone, noise, level. Timing is kept exactly."""
    from scipy import fft  # unlike numpy's, it stays in single precision

    n = len(samples)
    size = fft.next_fast_len(n, real=True)
    hertz = fft.rfftfreq(size, 1.0 / SAMPLE_RATE_HZ)
    shape = np.ones(len(hertz), np.float32)
    if rng.uniform() < cfg.tilt:
        knots = rng.uniform(-cfg.tilt_db, cfg.tilt_db, 6)
        position = np.log2(np.maximum(hertz, 50.0) / 50.0) / np.log2(8000 / 50.0) * 5
        shape = shape * 10.0 ** (np.interp(position, np.arange(6), knots) / 20.0)
    if rng.uniform() < cfg.band:
        low = rng.uniform(100, 400) if rng.uniform() < 0.5 else 20.0
        high = rng.uniform(2500, 5000)
        edge = 1.0 / (1.0 + (hertz / high) ** 8) / (1.0 + (low / np.maximum(hertz, 1.0)) ** 6)
        shape = shape * edge
    if rng.uniform() < cfg.reverb:
        tail = int(rng.uniform(0.08, 0.5) * SAMPLE_RATE_HZ)
        decay = np.exp(-6.9 * np.arange(tail) / tail)
        room = rng.standard_normal(tail) * decay
        room *= rng.uniform(0.15, 0.8) / np.sqrt(np.square(room).sum())
        room[0] = 1.0  # the direct sound arrives at once
        shape = shape * fft.rfft(room.astype(np.float32), size)
    shape = shape.astype(np.complex64)
    out = fft.irfft(fft.rfft(samples, size) * shape, size)[:n].astype(np.float32)

    level = float(np.sqrt(np.mean(np.square(out)))) if np.any(out) else 0.0
    if rng.uniform() < cfg.noise:
        if babble is not None and level > 0 and rng.uniform() < cfg.babble:
            noise: np.ndarray = babble(rng, n)
        else:
            colour = rng.uniform(0.0, 2.0)  # 0 white, 1 pink, 2 brown, in power per octave
            white = fft.rfft(rng.standard_normal(size, dtype=np.float32))
            slope = (np.maximum(hertz, 40.0) ** (-colour / 2)).astype(np.float32)
            noise = fft.irfft(white * slope, size)[:n]
            if rng.uniform() < 0.3:  # noise that comes and goes
                swell = np.interp(np.arange(n), np.linspace(0, n, 12), rng.uniform(0, 1, 12))
                noise = noise * swell
        strength = float(np.sqrt(np.mean(np.square(noise)))) + 1e-9
        snr_db = rng.uniform(*cfg.snr_db)
        # Noise without speech gets the level it would have beside speech.
        wanted = (level if level > 1e-4 else 0.05) * 10.0 ** (-snr_db / 20.0)
        out = out + (noise * (wanted / strength)).astype(np.float32)
    else:
        hiss = np.float32(10.0 ** rng.uniform(-5.5, -3.5))
        out = out + rng.standard_normal(n, dtype=np.float32) * hiss
    if rng.uniform() < cfg.saturate:
        peak = float(np.abs(out).max()) + 1e-6
        drive = rng.uniform(1.0, 4.0)
        out = np.tanh(out / peak * drive) * (peak / drive)
    gain = 10.0 ** (rng.uniform(-cfg.gain_db, cfg.gain_db) / 20.0)
    return np.clip(out * gain, -1.0, 1.0).astype(np.float32)
