"""Stage-2 training windows.

A window is K past frames, W frames and the look-ahead, with features of freshly varied sound
(``data/augment.py``) from a corpus of clips (``data/corpus.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from vasa_jax.audio import features as audio_features
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.types import Controls
from vasa_jax.data.augment import AugmentConfig, augment, sound_at
from vasa_jax.data.corpus import MotionCorpus


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionDataConfig:
    """Where windows come from."""

    folders: tuple[str, ...] = ()  # of shards; "$NAME" parts are taken from the environment
    shares: tuple[float, ...] = ()  # probability of each folder; empty: by length
    batch: int = 32
    windows_per_clip: int = 4  # windows that share one augmented stretch of sound
    lead_frames: int = 40  # sound before the window that sets the level
    held_out: float = 0.03  # share of each folder, its last people, that is never trained on
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0


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

        features (B, A, D), audio_valid (B, A), motion (B, F, M) physical, motion_valid (B, F),
        controls (B, W, ...), viseme (B, F), trust (B, M).

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
            sound = sound_at(clip.samples, start - cfg.lead_frames, total, speed)
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
            chosen = self.corpus.speaking[rng.integers(len(self.corpus.speaking))]
            voice = self.corpus.clips.samples(chosen).astype(np.float32) / 32767
            shift = int(rng.integers(len(voice)))
            total += np.resize(np.roll(voice, shift), length)
        return total


def _on_host() -> Any:
    """On the processor: on an accelerator the features would queue behind the running step."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to know nothing but the accelerator
        return contextlib.nullcontext()


def _between(values_TM: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of ``values_TM`` at fractional positions, linearly."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(values_TM) - 1)
    share = (at - low)[:, None].astype(np.float32)
    return values_TM[low] * (1 - share) + values_TM[high] * share
