"""Clips whose motion is acted by rules, to synthetic voices or to what is heard in real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import (
    EXPRESSION,
    MOTION_DIM,
    MOTION_NAMES,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    Controls,
)
from vasa_jax.data.corpus import MotionClip, write_shard
from vasa_jax.motion.latents import LIPS

OPENERS = ("jawOpen", "mouthLowerDown", "mouthUpperUp")


def synthetic_clip(rng: np.random.Generator) -> MotionClip:
    """One synthetic performance of 6-15 s: a random voice, sentences with pauses, exact truth."""
    from vasa_jax.data import performance, voice
    from vasa_jax.data.sentences import random_text

    seed = int(rng.integers(2**31))
    speech = rng.uniform() > 0.06
    if speech:
        speaker = _working_voice(rng)
        parts = [voice.silence(float(rng.uniform(0.0, 0.8)))]
        while sum(p.duration_s for p in parts) < 6.0:
            text = random_text(rng, speaker.language, count=int(rng.integers(1, 3)))
            parts.append(voice.speak(text, speaker, seed=seed))
            parts.append(voice.silence(float(rng.choice([0.15, 0.4, 1.5]) * rng.uniform(0.5, 1.5))))
        said = voice.join(parts)
        said = voice.cut(said, 0.0, min(said.duration_s, 15.0))
    else:
        said = voice.silence(float(rng.uniform(4.0, 10.0)))
    frames = len(said.samples) // SAMPLES_PER_FRAME
    said = voice.cut(said, 0.0, frames * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ)
    acted = performance.perform(said, seed=seed)
    return MotionClip(
        said.samples[: frames * SAMPLES_PER_FRAME],
        acted.motion[:frames],
        Controls(*(np.asarray(x[:frames], np.float32) for x in acted.controls)),
        np.asarray(acted.viseme[:frames], np.int8),
        np.ones(MOTION_DIM, np.float32),
        speech,
    )


def _working_voice(rng: np.random.Generator) -> Any:
    """A random voice that the installed synthesiser really has."""
    from vasa_jax.data import voice

    while True:
        speaker = voice.random_voice(rng)
        try:
            voice.speak("a", speaker)
        except UserError:
            continue
        return speaker


def toy_clips(count: int = 8, frames: int = 150, seed: int = 0) -> list[MotionClip]:
    """Stand-in data for tests and the smoke run: buzzing whose loudness opens the jaw."""
    out = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        knots = rng.uniform(0, 1, frames // 4 + 2) * (rng.uniform(size=frames // 4 + 2) < 0.7)
        opening = np.interp(np.arange(frames) / 4, np.arange(len(knots)), knots)
        time_s = np.arange(frames * SAMPLES_PER_FRAME) / SAMPLE_RATE_HZ
        buzz = np.sign(np.sin(2 * np.pi * rng.uniform(90, 220) * time_s)) * 0.1
        loud = np.interp(time_s * 25, np.arange(frames), opening)
        motion = np.zeros((frames, MOTION_DIM), np.float32)
        motion[:, 9 + 18] = 0.6 * opening  # jawOpen
        sway = np.cumsum(rng.standard_normal((frames, 3)), axis=0) * 0.01
        motion[:, :3] = sway - sway.mean(0)
        gaze = rng.normal(0, 0.15, 2).astype(np.float32)
        motion[:, 7:9] = gaze
        controls = Controls.none(frames)._replace(
            gaze=np.tile(gaze, (frames, 1)), gaze_on=np.ones(frames, np.float32)
        )
        viseme = (opening > 0.3).astype(np.int8)
        sound = (buzz * loud * 32767).astype(np.int16)
        out.append(MotionClip(sound, motion, controls, viseme, np.ones(54, np.float32), True))
    return out


def recognised_phonemes(samples: np.ndarray) -> list[Any]:
    """Spans of phonemes (``voice.Phoneme``) heard in real speech (S,) at 16 kHz, gaps as silence.

    The recogniser is sure near a vowel's middle or a stop's release, so a sound begins half-way
    back to the one before, at most 50 ms, and ends half-way to the next.
    """
    from vasa_jax.data import voice
    from vasa_jax.metrics import phonemes

    duration_s = len(samples) / SAMPLE_RATE_HZ
    heard = phonemes.recognise(samples)
    spans = []
    for i, p in enumerate(heard):
        before = heard[i - 1].start if i else -1.0
        after = heard[i + 1].start if i + 1 < len(heard) else p.start + 1.0
        start = max(p.start - 0.05, 0.5 * (p.start + before), 0.0)
        end = min(0.5 * (p.start + after), p.start + 0.15, duration_s)
        if end > start + 0.005:
            spans.append(voice.Phoneme(p.symbol, start, end))
    return list(voice.join([voice.Speech(samples, spans)]).phonemes)


def recognised_clip(
    samples: np.ndarray, *, seed: int, real_gap_cm: np.ndarray | None = None
) -> MotionClip:
    """Real speech acted out: phonemes from the recogniser, then the synthetic performance.

    This gives real voices the exact conventions of the synthetic data (true closures, rest in
    silence). ``real_gap_cm (T,)``, the measured gap between the speaker's lips, makes the opening
    real: what opens the mouth is scaled until the gap of the weights is the measured one.
    """
    from vasa_jax.data import performance, visemes, voice

    frames = len(samples) // SAMPLES_PER_FRAME
    samples = np.asarray(samples[: frames * SAMPLES_PER_FRAME], np.float32)
    spans = recognised_phonemes(samples)
    level = float(np.sqrt(np.mean(np.square(samples)))) + 1e-6
    said = voice.Speech(samples * (0.06 / level), spans)
    acted = performance.perform(said, seed=seed, emotion="neutral", strength=0.5)
    motion = np.array(acted.motion[:frames], np.float32)
    if real_gap_cm is not None:
        weights = motion[:, EXPRESSION]
        gap = np.maximum(visemes.lip_gap_cm(weights), 0.02)
        wanted = np.interp(np.arange(frames), np.arange(len(real_gap_cm)), real_gap_cm)
        # Within bounds, and never opening what must be shut.
        scale = np.clip(np.maximum(wanted, 0.0) / gap, 0.35, 1.6)[:, None]
        scale = np.where(acted.closure[:frames, None] > 0.5, np.minimum(scale, 1.0), scale)
        openers = [i for i in LIPS if MOTION_NAMES[i].startswith(OPENERS)]
        motion[:, openers] = np.clip(motion[:, openers] * scale, 0.0, 1.0)
    return MotionClip(
        samples, motion, Controls(*(np.asarray(x[:frames], np.float32) for x in acted.controls)),
        np.asarray(acted.viseme[:frames], np.int8), np.ones(MOTION_DIM, np.float32), True,
    )  # fmt: skip


def make_recognised_shards(out: Path, folder: Path, gaps: Path | None, *, per_shard: int) -> None:
    """Shards of every recording or video in ``folder``.

    ``gaps`` may hold ``NAME.npy``, the measured lip gap in cm per frame, for some of them.
    """
    from vasa_jax.io.audio import read_audio

    files = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".wav", ".flac", ".mp3"))
    for i in range(-(-len(files) // per_shard)):
        path = out / f"recognised_{i:05d}.npz"
        if path.exists():
            continue
        clips = []
        for number, file in enumerate(files[i * per_shard : (i + 1) * per_shard]):
            rng = np.random.default_rng([13, i, number])
            measured = gaps / f"{file.stem}.npy" if gaps is not None else None
            gap = np.load(measured) if measured is not None and measured.exists() else None
            seed = int(rng.integers(2**31))
            clips.append(recognised_clip(read_audio(file), seed=seed, real_gap_cm=gap))
        write_shard(path, clips)
        print(f"shard {i + 1} of {-(-len(files) // per_shard)}", flush=True)


def make_synthetic_shard(path: Path, *, seed: int, minutes: float) -> None:
    """One shard of synthetic performances (``data/voice.py``, ``data/performance.py``)."""
    rng = np.random.default_rng([7, seed])
    clips: list[MotionClip] = []
    frames = 0
    while frames < minutes * 60 * 25:
        clips.append(synthetic_clip(rng))
        frames += len(clips[-1].motion)
    write_shard(path, clips)
