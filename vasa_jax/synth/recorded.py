"""Clips of recorded voices whose motion is acted by rules to what a recogniser hears in them.

The phonemes come from ``metrics/phonemes.py``, which needs no transcript; everything else is the
performance of the synthetic voices (``synth/performance.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, LIPS, MOTION_DIM, MOTION_NAMES
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Controls
from vasa_jax.data.folders import (
    SOUND_ENDINGS,
    VIDEO_ENDINGS,
    LeftOut,
    media_files,
    only_of_its_stem,
    person_of,
)
from vasa_jax.data.shards import MotionClip, write_shard
from vasa_jax.io.audio import read_audio
from vasa_jax.metrics import phonemes
from vasa_jax.motion.arkit.lips import lip_gap_cm
from vasa_jax.synth import performance
from vasa_jax.synth.speech import voice

OPENERS = ("jawOpen", "mouthLowerDown", "mouthUpperUp")
LEVEL = 0.06  # root mean square that recordings are set to; synthetic voices have about 0.05
MIN_PHONEMES_PER_S = 2.0  # fewer are heard in tones and music
PAUSE_S = (0.2, 0.8)  # between recordings that are joined


def recognised(samples_S: np.ndarray) -> voice.Speech:
    """What is heard in a recording (mono, 16 kHz), gaps as silence, set to ``LEVEL``.

    The recogniser is sure of a sound after the lips have done their part (``phonemes.lip_time``).
    A sound begins half-way back to the one before, at most 50 ms, and ends half-way to the next.
    """
    duration_s = len(samples_S) / SAMPLE_RATE_HZ
    heard = phonemes.recognise(samples_S)
    spans = []
    times = [phonemes.lip_time(p) for p in heard]
    for p, before, at, after in zip(
        heard, [-1.0, *times], times, [*times[1:], np.inf], strict=False
    ):
        start = max(at - 0.05, 0.5 * (at + before), 0.0)
        end = min(0.5 * (at + after), at + 0.15, duration_s)
        if end > start + 0.005:
            spans.append(voice.Phoneme(p.symbol, start, end))
    level = float(np.sqrt(np.mean(np.square(samples_S)))) + 1e-6
    return voice.join([voice.Speech(samples_S * (LEVEL / level), spans)])


def spoken(said: voice.Speech) -> bool:
    """Whether somebody speaks in it: there are recordings of tones, music and nothing."""
    count = sum(p.symbol != voice.SILENCE for p in said.phonemes)
    return count >= max(2.0, MIN_PHONEMES_PER_S * said.duration_s)


def recorded_clip(
    said: voice.Speech, *, seed: int, real_gap_cm: np.ndarray | None = None
) -> MotionClip:
    """A recording (``recognised``) acted out by the synthetic performance.

    This gives real voices the exact conventions of the synthetic data (true closures, rest in
    silence). ``real_gap_cm (T,)``, the measured gap between the speaker's lips, makes the opening
    real: what opens the mouth is scaled until the gap of the weights is the measured one.
    """
    frames = len(said.samples) // SAMPLES_PER_FRAME
    samples = np.asarray(said.samples[: frames * SAMPLES_PER_FRAME], np.float32)
    acted = performance.perform(
        voice.Speech(samples, said.phonemes), seed=seed, emotion="neutral", strength=0.5
    )
    motion = np.array(acted.motion[:frames], np.float32)
    if real_gap_cm is not None:
        weights = motion[:, EXPRESSION]
        gap = np.maximum(lip_gap_cm(weights), 0.02)
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


def make_shards(
    out: Path, folder: Path, gaps: Path | None = None, *, per_shard: int = 50, join_s: float = 0.0
) -> None:
    """Shards of every recording or video in ``folder``, ``per_shard`` clips each.

    Args:
        gaps: may hold ``NAME.npy``, the measured lip gap in cm per frame, for some of them.
        join_s: 0 takes each file as a clip. Otherwise the recordings of one folder, also of one
            below it, follow one another with pauses until a clip is that long: one word alone
            teaches nothing of the lips before and after it. Files without speech are left out.

    A file that is damaged or has no sound is left out and told. Raises UserError where there is
    no recording, or none can be used.
    """
    files = media_files(folder, (*SOUND_ENDINGS, *VIDEO_ENDINGS), "recordings")
    left_out = LeftOut()
    groups = list(_joined_files(files, join_s, left_out)) if join_s else [[f] for f in files]
    count = -(-len(groups) // per_shard)
    for i in range(count):
        path = out / f"recognised_{i:05d}.array_record"
        if path.exists():
            continue
        clips = []
        for number, group in enumerate(groups[i * per_shard : (i + 1) * per_shard]):
            rng = np.random.default_rng([13, i, number])
            seed = int(rng.integers(2**31))
            person = person_of(group[0], folder)
            if join_s:
                parts = [s for s in map(recognised, map(read_audio, group)) if spoken(s)]
                if parts:
                    clip = recorded_clip(_with_pauses(parts, rng), seed=seed)
                    clips.append(clip._replace(person=person))
                continue
            try:
                heard = recognised(read_audio(group[0]))
            except UserError as error:
                left_out.add(group[0], error)
                continue
            gap = _measured_gap(group[0], gaps)
            clips.append(recorded_clip(heard, seed=seed, real_gap_cm=gap)._replace(person=person))
        if clips:
            write_shard(path, clips)
        print(f"shard {i + 1} of {count}", flush=True)
    left_out.tell(len(files))


def _measured_gap(path: Path, gaps: Path | None) -> np.ndarray | None:
    """The measured lip gap of a recording: NAME.mp4.npy, or NAME.npy if no other is meant."""
    if gaps is None:
        return None
    names = [path.name] + ([path.stem] if only_of_its_stem(path) else [])
    found = [file for name in names if (file := gaps / f"{name}.npy").exists()]
    return np.load(found[0]) if found else None


def _joined_files(files: list[Path], join_s: float, left_out: LeftOut) -> Iterator[list[Path]]:
    """Neighbours of one folder that together last ``join_s`` or a little more."""
    group: list[Path] = []
    seconds = 0.0
    for file in files:
        if group and file.parent != group[-1].parent:
            yield group
            group, seconds = [], 0.0
        try:
            length = len(read_audio(file)) / SAMPLE_RATE_HZ
        except UserError as error:  # a folder of thousands may hold an empty one
            left_out.add(file, error)
            continue
        group.append(file)
        seconds += length + float(np.mean(PAUSE_S))
        if seconds >= join_s:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def _with_pauses(parts: list[voice.Speech], rng: np.random.Generator) -> voice.Speech:
    joined: list[voice.Speech] = []
    for part in parts:
        joined += [voice.silence(float(rng.uniform(*PAUSE_S))), part]
    return voice.join(joined)
