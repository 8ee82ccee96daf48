"""What the motion is asked to follow, and how each condition is left out.

Conditions are audio, past (motion and audio together), gaze, distance and emotion. Each control
has a learned null, used where the user does not ask (``*_on`` = 0) or where training or guidance
drops it. Audio and past are dropped by marking their frames as not valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.core.types import Controls

CONTROL_NAMES = ("gaze", "distance", "emotion")
CONDITION_NAMES = ("audio", "past", *CONTROL_NAMES)

Keep = Mapping[str, jax.Array]  # condition -> (B,) bool; a missing name is kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropConfig:
    """How often training leaves conditions out (paper, section 3.2)."""

    condition: float = 0.1  # each of audio, gaze, distance, emotion, independently
    past: float = 0.5  # past motion and past audio, jointly
    tail: float = 0.3  # audio is cut off at a random frame
    hide_tail: float = 0.5  # of those, motion after the cut is hidden too (short live windows)


def kept(keep: Keep, name: str, batch: int) -> jax.Array:
    """The mask of one condition, all True where none is given."""
    return keep[name] if name in keep else jnp.ones((batch,), bool)


def sample_keep(key: jax.Array, batch: int, cfg: DropConfig) -> dict[str, jax.Array]:
    """Independent drops for a training batch."""
    keep = {}
    for i, name in enumerate(CONDITION_NAMES):
        rate = cfg.past if name == "past" else cfg.condition
        keep[name] = jax.random.uniform(jax.random.fold_in(key, i), (batch,)) >= rate
    return keep


def sample_tail(
    key: jax.Array, batch: int, frames: int, ahead: int, cfg: DropConfig
) -> tuple[jax.Array, jax.Array]:
    """Random tail truncation.

    Returns ``audio_valid (B, frames + ahead)`` and ``motion_valid (B, frames)``, both bool.
    """
    k_cut, k_length, k_hide = jax.random.split(key, 3)
    cut = jax.random.uniform(k_cut, (batch,)) < cfg.tail
    length = jax.random.randint(k_length, (batch,), 4, frames + ahead + 1)
    length = jnp.where(cut, length, frames + ahead)
    audio_valid = jnp.arange(frames + ahead)[None] < length[:, None]
    hide = cut & (jax.random.uniform(k_hide, (batch,)) < cfg.hide_tail)
    end = jnp.where(hide, jnp.minimum(length, frames), frames)
    return audio_valid, jnp.arange(frames)[None] < end[:, None]


class ControlEmbedding(nn.Module):
    """Controls per frame to vectors ``(B, T, width)``: one sum over gaze, distance and emotion."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, controls: Controls, keep: Keep) -> jax.Array:
        batch = controls.gaze_on.shape[0]
        values = {
            # Scaled to about one: gaze of 0.2 rad, a fifth nearer, full emotion.
            "gaze": (controls.gaze / 0.2, controls.gaze_on),
            "distance": (-jnp.log(controls.distance)[..., None] / 0.15, controls.distance_on),
            "emotion": (controls.emotion, controls.emotion_on),
        }
        total = jnp.zeros((), self.dtype)
        for name in CONTROL_NAMES:
            value, on = values[name]
            asked = (on > 0.5) & kept(keep, name, batch)[:, None]
            value = jnp.where(asked[..., None], value, 0.0).astype(self.dtype)
            code = nn.Dense(self.width, dtype=self.dtype, name=name)(value)
            null = self.param(f"null_{name}", nn.initializers.normal(0.1), (self.width,))
            total = total + jnp.where(asked[..., None], code, null.astype(self.dtype)[None, None])
        return total
