"""Train ``metrics/sync_net``: which of many sounds belongs to this mouth?

Of each window some frames are anchors. Mouth and sound of one anchor are a pair; the sounds of all
other anchors of the batch are wrong for it, and so are the mouths for its sound: other people, and
other moments of the same one, which is what makes the net look at speech and not at voices
(InfoNCE, van den Oord et al. 2018, arXiv 1807.03748, both ways). Sound is varied as for stage 2
(``data/augment.py``) and moved along the mel axis, which is about what another throat does; mouths
are varied in strength, as a whole and point by point, and by noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.audio.features import FeatureConfig
from vasa_jax.data.corpus import MotionCorpus
from vasa_jax.data.motions import MotionDataConfig, MotionWindows
from vasa_jax.data.shards import MotionClip
from vasa_jax.metrics.sync_net import (
    CURVES,
    MAX_LAG_FRAMES,
    MIN_FRAMES,
    SyncJudge,
    SyncNet,
    SyncNetConfig,
    confidence,
    shifted_agreement,
    shifted_confidence,
)
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState

EVALUATED = 60  # held-out clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncTrainConfig:
    """Everything about a run of the sync net."""

    model: SyncNetConfig = SyncNetConfig()
    data: MotionDataConfig = MotionDataConfig(batch=96, windows_per_clip=3, held_out=0.06)
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    window: int = 24  # frames
    anchor_every: int = 4  # frames; nearer ones look alike
    margin: int = 4  # frames at both ends of a window that are no anchors: towers see past them
    throat: int = 5  # mel bands by which a window's sound is moved, at most
    strength: float = 0.3  # deviation of the log of a mouth's strength
    own_strength: float = 0.15  # the same of each number of it
    noise: float = 0.05  # of the curves, in their units
    seed: int = 0

    def task(self) -> SyncTask:
        return SyncTask(self)


def contrast(
    mouth_NE: jax.Array, sound_NE: jax.Array, scale: jax.Array, valid_N: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """InfoNCE both ways over the valid ones of N pairs: loss, and share of mouths that hit."""
    logits = scale * mouth_NE @ sound_NE.T
    logits = jnp.where(valid_N[None] & valid_N[:, None], logits, -1e9)
    weight = valid_N / jnp.maximum(valid_N.sum(), 1)
    right = jnp.arange(len(logits))

    def chosen(logits: jax.Array) -> jax.Array:
        return -(jax.nn.log_softmax(logits)[right, right] * weight).sum()

    hit = ((logits.argmax(1) == right) * weight).sum()
    return 0.5 * (chosen(logits) + chosen(logits.T)), hit


def other_throat(cfg: FeatureConfig, sound_BTD: jax.Array, bands_B: jax.Array) -> jax.Array:
    """Log-mel features moved up by ``bands``; what comes in at the edge repeats it."""
    b, t, _ = sound_BTD.shape
    mels = sound_BTD[..., :-1].reshape(b, t, cfg.hops, cfg.num_mels)
    at = jnp.clip(jnp.arange(cfg.num_mels)[None] - bands_B[:, None], 0, cfg.num_mels - 1)
    moved = jnp.take_along_axis(mels, at[:, None, None], axis=-1)
    return jnp.concatenate([moved.reshape(b, t, -1), sound_BTD[..., -1:]], -1)


class SyncTask:
    """The sync net for ``train/loop.py``."""

    def __init__(self, cfg: SyncTrainConfig):
        self.cfg, self.batch_size = cfg, cfg.data.batch
        corpus = MotionCorpus(cfg.data.folders, cfg.data.shares)
        self.corpus, self.held_out = corpus.split(cfg.data.held_out)
        self.windows = MotionWindows(
            cfg.data, self.corpus, cfg.model.features, window=cfg.window, past=0, lookahead=0
        )
        self.tx = make_optimizer(cfg.optim)

    def init(self, key: jax.Array) -> TrainState:
        shapes = jnp.zeros((1, 8, CURVES)), jnp.zeros((1, 8, self.cfg.model.features.dim))
        params = SyncNet(self.cfg.model).init(key, *shapes)["params"]
        return TrainState.create(params, self.tx, key)

    def batches(
        self, start_step: int, rows: slice | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.windows.batches(start_step, rows):
            yield {
                "mouth": batch["motion"].astype(np.float32),
                "sound": batch["features"].astype(np.float32),
                "valid": batch["motion_valid"] & batch["audio_valid"],
            }

    def update(
        self, state: TrainState, batch: dict[str, Any], key: jax.Array, constants: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        cfg = self.cfg
        key_strength, key_own, key_noise, key_throat = jax.random.split(key, 4)
        b, t, curves = batch["mouth"].shape
        strength = cfg.strength * jax.random.normal(key_strength, (b, 1, 1))
        own = cfg.own_strength * jax.random.normal(key_own, (b, 1, curves))
        mouth = batch["mouth"] * jnp.exp(strength + own)
        mouth = mouth + cfg.noise * jax.random.normal(key_noise, mouth.shape)
        bands = jax.random.randint(key_throat, (b,), -cfg.throat, cfg.throat + 1)
        sound = other_throat(cfg.model.features, batch["sound"], bands)
        at = jnp.arange(cfg.margin, t - cfg.margin, cfg.anchor_every)

        def loss(params: Any, batch: dict[str, Any]):
            made: Any = SyncNet(cfg.model).apply({"params": params}, batch["mouth"], batch["sound"])
            m, s, scale = made
            value, hit = contrast(
                m[:, at].reshape(-1, m.shape[-1]), s[:, at].reshape(-1, s.shape[-1]),
                jnp.minimum(scale, 100.0), batch["valid"][:, at].reshape(-1),
            )  # fmt: skip
            return value, {"loss": value, "hit": hit, "scale": scale}

        return descend(cfg.optim, self.tx, loss, state, {**batch, "mouth": mouth, "sound": sound})

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """``ranks`` of held-out clips."""
        judge = SyncJudge(self.cfg.model, state.ema)
        long = np.flatnonzero(self.held_out.clips.length >= MIN_FRAMES)
        chosen = long[:: max(1, len(long) // EVALUATED)]
        return ranks(judge, [self.held_out.clips[i] for i in chosen])


def ranks(judge: SyncJudge, clips: list[MotionClip]) -> dict[str, float]:
    """Does true sound agree better than shifted, and than another clip's?

    Confidences as ``SyncJudge.measure`` has them, each at its own best shift, since the sound of
    recordings may be late. ``true``, ``shifted`` (by 30, 50, 70 % of the clip) and ``shuffled``
    (eight other clips) are means over clips; ``true_over_shifted`` and ``true_over_shuffled`` the
    shares of clips; ``lag`` the mean distance of the true sound's best shift from none, frames.
    """
    pairs = [judge.embed(c.motion, np.asarray(c.samples, np.float32) / 32767) for c in clips]
    true, shifted, shuffled, lag = [], [], [], []
    for i, (mouth, sound) in enumerate(pairs):
        curve = shifted_agreement(mouth, sound)
        true.append(confidence(curve))
        lag.append(abs(int(np.argmax(curve)) - MAX_LAG_FRAMES))
        shifted.append(shifted_confidence(mouth, sound))
        others = [p[1] for j, p in enumerate(pairs) if j != i][:8]
        wrong = [confidence(shifted_agreement(mouth[: len(s)], s[: len(mouth)])) for s in others]
        shuffled.append(np.mean(wrong))
    t, s, o = np.array(true), np.array(shifted), np.array(shuffled)
    return {
        "true": t.mean(), "shifted": s.mean(), "shuffled": o.mean(), "lag": float(np.mean(lag)),
        "true_over_shifted": (t > s).mean(), "true_over_shuffled": (t > o).mean(),
    }  # fmt: skip
