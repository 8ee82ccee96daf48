"""Stage-2 data: clips of speech with the motion that belongs to it, and training windows of them.

A clip comes from any source: the synthetic engine (exact truth for every frame), or real video read
by the motion encoder (``data/videos.py``). Clips lie in shards, ``*.npz`` of float16 motion and
int16 sound, a few minutes each; ``MotionCorpus`` holds a folder of them in memory. A window is K
past frames, W frames and the look-ahead, with features of freshly augmented sound: the same clip
never sounds the same twice, which is what lets a few voices stand for all.

    python -m vasa_jax.data.motions synthetic OUT --hours 4
    python -m vasa_jax.data.motions videos OUT --folder DIR --encoder runs/motion_encoder
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vasa_jax.audio import features as audio_features
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import (
    EXPRESSION,
    MOTION_DIM,
    MOTION_NAMES,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    Controls,
)
from vasa_jax.motion.latents import LIPS, MotionStats

OPENERS = ("jawOpen", "mouthLowerDown", "mouthUpperUp")


class MotionClip(NamedTuple):
    """Speech and motion of T frames."""

    samples: np.ndarray  # (640 T,) float32, 16 kHz
    motion: np.ndarray  # (T, 54) float32
    controls: Controls  # labels, leading shape (T,); *_on = 0 where not known
    viseme: np.ndarray  # (T,) int8, -1 where not known
    trust: np.ndarray  # (54,) weight of each dimension in the loss: 0 where the source is blind
    speech: bool  # False: nobody speaks (such clips are never used as babble)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionDataConfig:
    """Where windows come from."""

    folders: tuple[str, ...] = ()  # of shards; "$NAME" parts are taken from the environment
    shares: tuple[float, ...] = ()  # probability of each folder; empty: by length
    batch: int = 32
    windows_per_clip: int = 4  # windows that share one augmented stretch of sound
    lead_frames: int = 40  # sound before the window that sets the level
    held_out: float = 0.03  # share of each folder, its end, that is never trained on
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0


# --- shards -------------------------------------------------------------------------------------


def write_shard(path: str | Path, clips: Sequence[MotionClip]) -> None:
    """Write clips to one ``.npz`` (temporary name, then renamed)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    length = np.array([len(c.motion) for c in clips], np.int32)

    def stack(values: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
        return np.concatenate([np.asarray(v) for v in values]).astype(dtype)

    for c in clips:
        if len(c.samples) != len(c.motion) * SAMPLES_PER_FRAME:
            raise ValueError("a clip's sound and motion must be equally long")
    table: dict[str, np.ndarray] = {
        "length": length,
        "samples": stack([np.clip(c.samples, -1, 1) * 32767 for c in clips], np.int16),
        "motion": stack([c.motion for c in clips], np.float16),
        "viseme": stack([c.viseme for c in clips], np.int8),
        "trust": np.stack([c.trust for c in clips]).astype(np.float16),
        "speech": np.array([c.speech for c in clips]),
    }
    for name in Controls._fields:
        values = [getattr(c.controls, name) for c in clips]
        table[f"controls_{name}"] = stack(values, np.float16)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **table)  # type: ignore[arg-type]  # names, not options
    temporary.rename(path)


def read_shard(path: str | Path) -> list[MotionClip]:
    """The clips of a shard."""
    with np.load(path) as table:
        data = {k: table[k] for k in table.files}
    out = []
    end = np.cumsum(data["length"])
    for i, stop in enumerate(end):
        start = stop - data["length"][i]
        controls = Controls(
            *(data[f"controls_{n}"][start:stop].astype(np.float32) for n in Controls._fields)
        )
        sound = data["samples"][start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        out.append(
            MotionClip(
                sound,
                data["motion"][start:stop].astype(np.float32),
                controls,
                data["viseme"][start:stop],
                data["trust"][i].astype(np.float32),
                bool(data["speech"][i]),
            )  # fmt: skip
        )
    return out


class MotionCorpus:
    """All clips of some folders in memory (sound stays int16)."""

    def __init__(self, folders: Sequence[str], shares: Sequence[float] = ()):
        self.clips: list[MotionClip] = []
        self.weights: list[float] = []
        self.sizes: list[int] = []  # clips of each folder
        for i, folder in enumerate(folders):
            path = Path(os.path.expandvars(folder)).expanduser()
            found = [c for shard in sorted(path.glob("*.npz")) for c in read_shard(shard)]
            if not found:
                raise UserError(f"no motion shards in {path}; make some with vasa_jax.data.motions")
            length = np.array([len(c.motion) for c in found], np.float64)
            share = shares[i] / length.sum() if shares else 1.0
            self.clips += found
            self.weights += list(length * share)
            self.sizes.append(len(found))
        self._settle()

    @classmethod
    def of(cls, clips: Sequence[MotionClip]) -> MotionCorpus:
        """A corpus of clips that are already in memory."""
        return cls(())._take(clips, [float(len(c.motion)) for c in clips], [len(clips)])

    def _take(self, clips, weights, sizes) -> MotionCorpus:
        self.clips, self.weights, self.sizes = list(clips), list(weights), list(sizes)
        self._settle()
        return self

    def split(self, share: float) -> tuple[MotionCorpus, MotionCorpus]:
        """Two corpora without a common recording: the rest, and the last ``share`` of each folder.

        The end, because variants of one recording lie side by side. At least one clip is held out;
        with a share of 0 both are the whole corpus.
        """
        if share <= 0:
            return self, self
        first = np.cumsum([0, *self.sizes[:-1]])
        last = np.zeros(len(self.clips), bool)
        for start, size in zip(first, self.sizes, strict=True):
            last[start + size - max(1, round(share * size)) : start + size] = True
        parts = []
        for chosen in (~last, last):
            at = np.flatnonzero(chosen)
            sizes = [int(chosen[a : a + n].sum()) for a, n in zip(first, self.sizes, strict=True)]
            parts.append(
                MotionCorpus(())._take(
                    [self.clips[i] for i in at], [self.weights[i] for i in at], sizes
                )
            )
        return parts[0], parts[1]

    def _settle(self) -> None:
        self.probability = np.array(self.weights) / max(np.sum(self.weights), 1e-9)
        self.speaking = [i for i, c in enumerate(self.clips) if c.speech]

    @property
    def frames(self) -> int:
        return sum(len(c.motion) for c in self.clips)

    def stats(self) -> MotionStats:
        """Mean and deviation of the motion as training will see it: weighted by the shares."""
        weight = self.probability / np.array([len(c.motion) for c in self.clips])
        mean = sum(
            w * c.motion.sum(0, dtype=np.float64) for w, c in zip(weight, self.clips, strict=True)
        )
        square = sum(
            w * np.square(c.motion - mean).sum(0) for w, c in zip(weight, self.clips, strict=True)
        )
        std = np.maximum(np.sqrt(square), 0.02)
        return MotionStats(np.asarray(mean, np.float32), np.asarray(std, np.float32))


# --- windows ------------------------------------------------------------------------------------


class MotionWindows:
    """Training batches, a pure function of (seed, step)."""

    def __init__(
        self,
        cfg: MotionDataConfig,
        corpus: MotionCorpus,
        features: FeatureConfig,
        *,
        window: int,
        past: int,
        lookahead: int,
    ):
        self.cfg, self.corpus, self.features = cfg, corpus, features
        self.window, self.past, self.lookahead = window, past, lookahead
        if cfg.batch % cfg.windows_per_clip:
            raise ValueError("batch must be a multiple of windows_per_clip")

    def batches(self, start_step: int, rows: slice | None = None) -> Iterator[dict[str, Any]]:
        step = start_step
        while True:
            yield self.batch(step, rows)
            step += 1

    def batch(self, step: int, rows: slice | None = None) -> dict[str, Any]:
        """Arrays of batch size B; A = K + W + lookahead, F = K + W.

        features (B, A, D), audio_valid (B, A), motion (B, F, 54) physical, motion_valid (B, F),
        controls (B, W, ...), viseme (B, F), trust (B, 54).

        ``rows`` asks for some of the B only. Windows of one stretch of sound are drawn together;
        stretch ``g`` is a pure function of (seed, step, g), whichever are made with it.
        """
        cfg, k, w, ahead = self.cfg, self.past, self.window, self.lookahead
        per = cfg.windows_per_clip
        first, last, _ = (rows or slice(None)).indices(cfg.batch)
        need = k + per * w + ahead
        total = cfg.lead_frames + need
        sounds, windows = [], []
        for group in range(first // per, -(-last // per)):
            rng = np.random.default_rng([cfg.seed, step, 1, group])
            index = rng.choice(len(self.corpus.clips), p=self.corpus.probability)
            clip = self.corpus.clips[index]
            speed = 1.0
            if rng.uniform() < cfg.augment.speed:
                low, high = np.log(cfg.augment.speed_range)
                speed = float(np.exp(rng.uniform(low, high)))
            length = int(len(clip.motion) / speed)
            # The stretch may begin before the clip and end after it: silence there, not valid.
            start = int(rng.integers(-k - 5, max(1, length - w // 2)))
            if length <= need:
                start = int(rng.integers(-k - 5, 1 + max(0, length - w - k)))
            sound = _sound_at(clip.samples, start - cfg.lead_frames, total, speed)
            sounds.append(augment(sound, cfg.augment, rng, self._babble))
            windows += [(clip, speed, start + j * w) for j in range(per)]
        with _on_host():
            feats = np.asarray(audio_features.features(self.features, np.stack(sounds)))
        out: dict[str, list[np.ndarray]] = {
            n: [] for n in ("features", "audio_valid", "motion", "motion_valid", "viseme", "trust")
        }
        tracks: list[Controls] = []
        cut = first - first // per * per  # rows of the first stretch that are not asked for
        for r, (clip, speed, start) in enumerate(windows[: cut + last - first]):
            if r < cut:
                continue
            offset = cfg.lead_frames + (r % per) * w
            length = int(len(clip.motion) / speed)
            frames = np.arange(start, start + k + w)
            inside = (frames >= 0) & (frames < length)
            # Frame i shows the middle of its 40 ms.
            at = np.clip((frames + 0.5) * speed - 0.5, 0, len(clip.motion) - 1)
            safe = np.round(at).astype(int)
            heard = np.arange(start, start + k + w + ahead)
            out["features"].append(feats[r // per, offset : offset + k + w + ahead])
            out["audio_valid"].append((heard >= 0) & (heard < length))
            out["motion"].append(_between(clip.motion, at))
            out["motion_valid"].append(inside)
            out["viseme"].append(np.where(inside, clip.viseme[safe], -1).astype(np.int32))
            out["trust"].append(clip.trust)
            tracks.append(Controls(*(x[safe[k:]] for x in clip.controls)))
        batch: dict[str, Any] = {n: np.stack(v) for n, v in out.items()}
        batch["controls"] = Controls(*(np.stack(x) for x in zip(*tracks, strict=True)))
        return batch

    def _babble(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Several people speaking at once."""
        total = np.zeros(length, np.float32)
        for _ in range(int(rng.integers(2, 6))):
            clip = self.corpus.clips[self.corpus.speaking[rng.integers(len(self.corpus.speaking))]]
            voice = clip.samples.astype(np.float32) / 32767
            shift = int(rng.integers(len(voice)))
            total += np.resize(np.roll(voice, shift), length)
        return total


def _on_host() -> Any:
    """On the processor: on an accelerator the features would queue behind the running step."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to know nothing but the accelerator
        return contextlib.nullcontext()


def _take(x: np.ndarray, start: int, length: int) -> np.ndarray:
    """``x[start : start + length]``, with zeros outside of it."""
    out = np.zeros(length, x.dtype)
    a, b = max(start, 0), min(start + length, len(x))
    if b > a:
        out[a - start : b - start] = x[a:b]
    return out


def _sound_at(samples: np.ndarray, first: int, frames: int, speed: float) -> np.ndarray:
    """``frames`` frames of sound from frame ``first`` of a clip played ``speed`` times as fast."""
    want = frames * SAMPLES_PER_FRAME
    start = round(first * SAMPLES_PER_FRAME * speed)
    if speed == 1.0:
        return _take(samples, start, want).astype(np.float32) / 32767
    import soxr

    sound = _take(samples, start, int(np.ceil(want * speed)) + 8).astype(np.float32) / 32767
    sound = soxr.resample(sound, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
    return np.ascontiguousarray(sound[:want], np.float32)


def _between(values_TM: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of ``values_TM`` at fractional positions, linearly."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values_TM) - 1)
    share = (at - low)[:, None].astype(np.float32)
    return values_TM[low] * (1 - share) + values_TM[high] * share


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


def change_speed(clip: MotionClip, factor: float) -> MotionClip:
    """``clip`` played ``factor`` times as fast: higher voice, shorter vocal tract, faster face.

    A cheap way to other speakers: factors of 0.8 to 1.25 span men to children.
    """
    import soxr

    samples = np.asarray(clip.samples, np.float32)
    if clip.samples.dtype == np.int16:
        samples = (samples / 32767).astype(np.float32)
    sound = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ)
    frames = len(sound) // SAMPLES_PER_FRAME
    at = np.clip(np.arange(frames) * factor, 0, len(clip.motion) - 1)
    nearest = np.round(at).astype(int)
    old = np.arange(len(clip.motion))
    motion = np.stack([np.interp(at, old, m) for m in clip.motion.T], axis=1).astype(np.float32)
    return MotionClip(
        sound[: frames * SAMPLES_PER_FRAME].astype(np.float32), motion,
        Controls(*(x[nearest] for x in clip.controls)), clip.viseme[nearest], clip.trust,
        clip.speech,
    )  # fmt: skip


# --- sources ------------------------------------------------------------------------------------


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
    """Shards of every recording or video in ``folder``, each also slower and faster.

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
            clip = recognised_clip(read_audio(file), seed=int(rng.integers(2**31)), real_gap_cm=gap)
            clips.append(clip)
            for low, high in ((0.8, 0.93), (1.07, 1.25)):
                clips.append(change_speed(clip, float(rng.uniform(low, high))))
        write_shard(path, clips)
        print(f"shard {i + 1} of {-(-len(files) // per_shard)}", flush=True)


# --- command ------------------------------------------------------------------------------------


def make_synthetic_shard(path: Path, *, seed: int, minutes: float) -> None:
    """One shard of synthetic performances (``data/voice.py``, ``data/performance.py``)."""
    rng = np.random.default_rng([7, seed])
    clips: list[MotionClip] = []
    frames = 0
    while frames < minutes * 60 * 25:
        clips.append(synthetic_clip(rng))
        frames += len(clips[-1].motion)
    write_shard(path, clips)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make shards of stage-2 training data.")
    parser.add_argument("source", choices=("synthetic", "speech", "videos"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=1.0, help="of synthetic speech")
    parser.add_argument("--minutes-per-shard", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--folder", type=Path, help="of videos of one talking person each")
    parser.add_argument("--gaps", type=Path, help="folder of measured lip gaps, NAME.npy in cm")
    parser.add_argument("--encoder", type=Path, help="run folder of configs/motion_encoder.py")
    parser.add_argument("--head", type=Path, help="head model, .npz, if not the bundled one")
    parser.add_argument("--landmarks", type=Path, help="folder that keeps the videos' landmarks")
    args = parser.parse_args()
    if args.source == "speech":
        if args.folder is None:
            parser.error("speech needs --folder")
        make_recognised_shards(args.out, args.folder, args.gaps, per_shard=50)
        return
    if args.source == "videos":
        if args.folder is None or args.encoder is None:
            parser.error("videos needs --folder and --encoder")
        from vasa_jax.data import videos

        reader = videos.load_reader(args.encoder, args.head)
        videos.make_video_shards(
            args.out, args.folder, reader, kept=args.landmarks, first=args.first
        )
        return
    count = max(1, round(args.hours * 60 / args.minutes_per_shard))
    began = time.monotonic()
    for i in range(args.first, args.first + count):
        path = args.out / f"synthetic_{i:05d}.npz"
        if not path.exists():
            make_synthetic_shard(path, seed=i, minutes=args.minutes_per_shard)
        done = i - args.first + 1
        print(f"{done}/{count} shards, {(time.monotonic() - began) / done:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
