"""Clips whose motion is acted by rules, to synthetic voices that know what they say and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Controls
from vasa_jax.data.shards import MotionClip, write_shard


def synthetic_clip(rng: np.random.Generator) -> MotionClip:
    """One synthetic performance of 6-15 s: a random voice, sentences with pauses, exact truth."""
    from vasa_jax.synth import performance
    from vasa_jax.synth.speech import voice
    from vasa_jax.synth.speech.sentences import random_text

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
    from vasa_jax.synth.speech import voice

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


def make_synthetic_shard(path: Path, *, seed: int, minutes: float) -> None:
    """One shard of synthetic performances (``synth/speech/voice.py``, ``synth/performance.py``)."""
    rng = np.random.default_rng([7, seed])
    clips: list[MotionClip] = []
    frames = 0
    while frames < minutes * 60 * 25:
        clips.append(synthetic_clip(rng))
        frames += len(clips[-1].motion)
    write_shard(path, clips)
