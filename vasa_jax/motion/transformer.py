"""Denoises a window of motion given speech, past motion and controls.

Token sequence of the paper's figure 2::

    past audio (K) | audio (T) | condition (1) | past motion (K) | noisy motion (T)

Frame i of audio and of motion state the same frame index to the rotary position code (past frames
are -K..-1), so they are aligned by construction. A type vector tells the five kinds of token apart,
and the diffusion time modulates every block. Two additions, each a switch: ``align_audio`` adds
each frame's audio token to its motion token, which learns lip sync with far less data than
attention alone; ``frame_controls`` adds the controls of each frame to its motion token, so that
tracks over time are followed by the frame and not by the window.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.core.types import Controls
from vasa_jax.motion.conditions import ControlEmbedding, Keep
from vasa_jax.nn.embed import TimeEmbedding
from vasa_jax.nn.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Size of the motion transformer; the defaults are the paper's."""

    depth: int = 8
    width: int = 512
    num_heads: int = 8
    mlp_ratio: float = 4.0
    align_audio: bool = True
    audio_tokens: bool = True  # False: audio reaches motion through align_audio alone
    frame_controls: bool = True

    def __post_init__(self) -> None:
        if not (self.align_audio or self.audio_tokens):
            raise ValueError("transformer: audio needs align_audio, audio_tokens, or both")


class MotionTransformer(nn.Module):
    """The paper's H(X_t, t, C), without the audio encoder."""

    cfg: TransformerConfig
    dim: int  # M, numbers of a motion vector
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
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
        """Motion ``(B, T, M)`` in normalised units.

        Args:
            noisy_BTM: normalised motion with noise; ``t_B`` its diffusion times.
            audio_BAD: tokens of the K past frames and the T frames, A = K + T; dropping audio has
                happened in the encoder.
            past_BKM: clean past motion; not looked at where ``past_valid_BK`` is False.
            motion_valid_BT: False hides a frame of the window (shorter live windows).
            controls: rows of the T frames; ``keep`` drops conditions per example.
        """
        c = self.cfg
        batch, frames, _ = noisy_BTM.shape
        past = past_BKM.shape[1]
        if audio_BAD.shape[1] != past + frames:
            raise ValueError(f"audio tokens for {past} + {frames} frames, got {audio_BAD.shape[1]}")

        def dense(name: str) -> nn.Dense:
            return nn.Dense(c.width, dtype=self.dtype, name=name)

        def kind(name: str) -> jax.Array:
            vector = self.param(f"type_{name}", nn.initializers.normal(0.02), (c.width,))
            return vector.astype(self.dtype)[None]

        time_BD = TimeEmbedding(c.width, dtype=self.dtype, name="time")(t_B)
        control_BTD = ControlEmbedding(c.width, dtype=self.dtype, name="controls")(controls, keep)
        weight_BT = motion_valid_BT.astype(self.dtype)[..., None]
        mean_BD = (control_BTD * weight_BT).sum(1) / jnp.maximum(weight_BT.sum(1), 1.0)
        condition_BD = dense("condition")(mean_BD) + time_BD + kind("condition")

        motion_in = dense("motion_in")
        noisy = jnp.where(motion_valid_BT[..., None], noisy_BTM, 0.0).astype(self.dtype)
        clean = jnp.where(past_valid_BK[..., None], past_BKM, 0.0).astype(self.dtype)
        null_past = self.param("null_past", nn.initializers.normal(0.02), (c.width,))
        motion_BTD = motion_in(noisy) + kind("motion")[None]
        past_BKD = (
            jnp.where(
                past_valid_BK[..., None],
                dense("past_in")(clean),
                null_past.astype(self.dtype)[None, None],
            )
            + kind("past_motion")[None]
        )
        audio_BAD = audio_BAD.astype(self.dtype)
        if c.align_audio:
            align = dense("align_audio")
            motion_BTD = motion_BTD + align(audio_BAD[:, past:])
            past_BKD = past_BKD + align(audio_BAD[:, :past])
        if c.frame_controls:
            motion_BTD = motion_BTD + control_BTD

        window = jnp.arange(frames)
        before = jnp.arange(-past, 0)
        always = jnp.ones((batch, 1), bool)
        parts = [
            (condition_BD[:, None], jnp.zeros(1, jnp.int32), always),
            (past_BKD, before, jnp.ones((batch, past), bool)),
            (motion_BTD, window, motion_valid_BT),
        ]
        if c.audio_tokens:
            tokens = dense("audio_in")(audio_BAD)
            # Audio tokens stay visible where audio is absent: they then hold the learned null.
            seen = jnp.ones((batch, past + frames), bool)
            marked = jnp.concatenate(
                [
                    tokens[:, :past] + kind("past_audio")[None],
                    tokens[:, past:] + kind("audio")[None],
                ],
                axis=1,
            )
            # A shorter live window has no audio tokens after its end.
            seen = seen.at[:, past:].set(motion_valid_BT)
            parts.insert(0, (marked, jnp.arange(-past, frames), seen))

        x_BLD = jnp.concatenate([p[0] for p in parts], axis=1)
        position_L = jnp.concatenate([p[1] for p in parts])
        valid_BL = jnp.concatenate([p[2] for p in parts], axis=1)
        x_BLD = Transformer(
            c.depth, c.num_heads, mlp_ratio=c.mlp_ratio, dtype=self.dtype, name="blocks"
        )(x_BLD, time_BD, valid_BL=valid_BL, position_L=position_L)
        out = nn.Dense(
            self.dim, kernel_init=nn.initializers.normal(1e-3), dtype=self.dtype, name="out"
        )(x_BLD[:, -frames:])
        return out.astype(jnp.float32)
