"""The motion model as inference needs it: audio encoder and transformer under one set of weights.

``encode`` runs once per window and guidance branch, ``denoise`` once per sampler step. Training
calls both at once through ``__call__``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.audio.encoder import AudioEncoder, EncoderConfig
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.precision import Precision
from vasa_jax.core.space import MotionSpace, SpaceConfig, space_of
from vasa_jax.core.types import Controls
from vasa_jax.diffusion.process import Prediction, to_x0
from vasa_jax.diffusion.schedules import SCHEDULES, Schedule
from vasa_jax.motion.conditions import Keep, kept
from vasa_jax.motion.transformer import MotionTransformer, TransformerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionModelConfig:
    """Everything that shapes the motion model; travels in a release as JSON."""

    space: SpaceConfig = SpaceConfig()  # what the motion that it makes means
    features: FeatureConfig = FeatureConfig()
    encoder: EncoderConfig = EncoderConfig()
    transformer: TransformerConfig = TransformerConfig()
    window: int = 50  # W, frames made at once
    past: int = 10  # K, frames of context
    num_visemes: int = 0  # classes of the encoder's auxiliary head; 0: none
    schedule: Literal["cosine", "linear"] = "cosine"
    prediction: Prediction = "x0"
    precision: Precision = Precision()

    @property
    def motion_space(self) -> MotionSpace:
        return space_of(self.space)

    @property
    def lookahead_frames(self) -> int:
        """Frames of speech after a frame that it may depend on, beyond the window it is in."""
        return self.features.lookahead_frames + self.encoder.lookahead_frames

    def make_schedule(self) -> Schedule:
        return SCHEDULES[self.schedule]()


class MotionModel(nn.Module):
    """Audio encoder, auxiliary heads (training only) and motion transformer."""

    cfg: MotionModelConfig

    def setup(self) -> None:
        c = self.cfg
        dtype = c.precision.compute_dtype
        self.audio = AudioEncoder(c.encoder, dtype=dtype)
        self.transformer = MotionTransformer(c.transformer, c.motion_space.dim, dtype=dtype)
        self.mouth_head = nn.Dense(len(c.motion_space.heard_numbers))
        if c.num_visemes:
            self.viseme_head = nn.Dense(c.num_visemes)

    def encode(self, features_BAD: jax.Array, valid_BA: jax.Array, keep: Keep) -> jax.Array:
        """Audio tokens ``(B, K + T, width)`` of features ``(B, K + T + lookahead, D)``.

        Dropping "audio" hides the frames from 0 on, dropping "past" those before.
        """
        c = self.cfg
        batch, length = valid_BA.shape
        is_past = (jnp.arange(length) < c.past)[None]
        hidden = jnp.where(
            is_past, ~kept(keep, "past", batch)[:, None], ~kept(keep, "audio", batch)[:, None]
        )
        tokens = self.audio(features_BAD, valid_BA & ~hidden)
        return tokens[:, : length - c.lookahead_frames]

    def denoise(
        self,
        noisy_BTM: jax.Array,
        t_B: jax.Array,
        *,
        audio_BAD: jax.Array,
        past_BKM: jax.Array,
        past_valid_BK: jax.Array,
        motion_valid_BT: jax.Array,
        controls: Controls,
        keep: Keep,
    ) -> jax.Array:
        """The network's estimate of the clean, normalised motion ``(B, T, M)``."""
        past_valid_BK = past_valid_BK & kept(keep, "past", noisy_BTM.shape[0])[:, None]
        output = self.transformer(
            noisy_BTM, t_B, audio_BAD=audio_BAD, past_BKM=past_BKM, past_valid_BK=past_valid_BK,
            motion_valid_BT=motion_valid_BT, controls=controls, keep=keep,
        )  # fmt: skip
        return to_x0(self.cfg.make_schedule(), noisy_BTM, t_B, output, self.cfg.prediction)

    def heads(self, audio_BAD: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """What the encoder alone makes of the speech: what is heard (``MotionSpace.heard``),
        normalised, and viseme logits."""
        logits = self.viseme_head(audio_BAD) if self.cfg.num_visemes else None
        return self.mouth_head(audio_BAD), logits

    def __call__(
        self,
        noisy_BTM: jax.Array,
        t_B: jax.Array,
        *,
        features_BAD: jax.Array,
        audio_valid_BA: jax.Array,
        past_BKM: jax.Array,
        past_valid_BK: jax.Array,
        motion_valid_BT: jax.Array,
        controls: Controls,
        keep: Keep,
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Clean motion; of K + T frames the encoder's guess of what is heard, and viseme logits."""
        audio_BAD = self.encode(features_BAD, audio_valid_BA, keep)
        x0 = self.denoise(
            noisy_BTM, t_B, audio_BAD=audio_BAD, past_BKM=past_BKM, past_valid_BK=past_valid_BK,
            motion_valid_BT=motion_valid_BT, controls=controls, keep=keep,
        )  # fmt: skip
        mouth, logits = self.heads(audio_BAD)
        return x0, mouth, logits


def init_params(cfg: MotionModelConfig, key: jax.Array) -> Any:
    """Fresh parameters (traceable)."""
    k, w, ahead, dim = cfg.past, cfg.window, cfg.lookahead_frames, cfg.motion_space.dim
    return MotionModel(cfg).init(
        key,
        jnp.zeros((1, w, dim)),
        jnp.zeros((1,)),
        features_BAD=jnp.zeros((1, k + w + ahead, cfg.features.dim)),
        audio_valid_BA=jnp.ones((1, k + w + ahead), bool),
        past_BKM=jnp.zeros((1, k, dim)),
        past_valid_BK=jnp.ones((1, k), bool),
        motion_valid_BT=jnp.ones((1, w), bool),
        controls=Controls.none(1, w),
        keep={},
    )["params"]
