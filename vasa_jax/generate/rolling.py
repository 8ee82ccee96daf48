"""The rolling step: speech and controls of the next frames in, their motion out, for B streams.

One pure function of (params, state, inputs) with fixed shapes. The paper's windowed mode
(``hop`` = window) and live modes (a hop of a few frames) are configurations of it, with the same
weights. A step makes ``hop`` frames and, in live modes, drafts ``lookahead`` more that the next
step makes again. Its audio input holds ``hop + lookahead`` frames of features, the last of which
come again as the first of the next step: that overlap is the declared latency,
``(hop + lookahead) * 40 ms``.

Noise of frame f is a function of (stream key, f) alone, so any frame can be made again, and streams
cannot see each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from vasa_jax.core.types import FPS, MOTION_DIM, MOTION_NAMES, Controls
from vasa_jax.diffusion import guidance, samplers
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.generate.model import MotionModel, MotionModelConfig

# Lids are rare events: a deterministic few-step sampler averages them away (2 blinks a minute),
# an ancestral one blinks but loosens the lips. So the lids alone are sampled ancestrally.
_LID_ETA = tuple(1.0 if name.startswith("eyeBlink") else 0.0 for name in MOTION_NAMES)
SAMPLERS: dict[str, samplers.Step] = samplers.SAMPLERS | {"ddim_lids": samplers.Ddim(eta=_LID_ETA)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollingConfig:
    """How motion is rolled out. Static: a change compiles anew."""

    hop: int = 50  # frames per step
    sampler: str = "ddim"
    steps: int = 10
    grid: str = "uniform"
    guided: tuple[str, ...] = ("audio", "gaze")  # conditions with a guidance branch

    def lookahead(self, model: MotionModelConfig) -> int:
        return model.lookahead_frames

    def frames(self, model: MotionModelConfig) -> int:
        """Frames in the network's window: the hop, and in live modes the drafted look-ahead."""
        return min(model.window, self.hop + self.lookahead(model))

    def latency_ms(self, model: MotionModelConfig) -> float:
        """From a sound to the frame that shows it, compute excluded."""
        return 1000.0 / FPS * (self.hop + self.lookahead(model))


@struct.dataclass
class RollingState:
    """Everything that survives between steps, for B streams; bounded, whatever the duration."""

    past_motion: jax.Array  # (B, K, M) normalised
    past_audio: jax.Array  # (B, K, D) features
    past_valid: jax.Array  # (B, K) bool, False before the beginning
    key: jax.Array  # (B,) typed keys
    frame: jax.Array  # (B,) int32, index of the next frame


def stream_keys(seeds: jax.Array) -> jax.Array:
    """One key per stream from integer seeds ``(B,)``."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def init_state(model: MotionModelConfig, seeds: jax.Array) -> RollingState:
    """Fresh streams, one per seed."""
    keys = stream_keys(seeds)
    batch = keys.shape[0]
    return RollingState(
        past_motion=jnp.zeros((batch, model.past, MOTION_DIM), jnp.float32),
        past_audio=jnp.zeros((batch, model.past, model.features.dim), jnp.float32),
        past_valid=jnp.zeros((batch, model.past), bool),
        key=keys,
        frame=jnp.zeros((batch,), jnp.int32),
    )


def step(
    params: Any,
    model: MotionModelConfig,
    cfg: RollingConfig,
    state: RollingState,
    audio_BAD: jax.Array,
    valid_BA: jax.Array,
    controls: Controls,
    scales: Mapping[str, jax.Array],
    *,
    active_B: jax.Array,
    reset_B: jax.Array,
) -> tuple[RollingState, jax.Array]:
    """The next ``hop`` frames of normalised motion ``(B, hop, M)``.

    Args:
        audio_BAD: features of ``hop + lookahead`` frames, from the next frame on.
        valid_BA: False where there is no sound (after the end); such frames may hold anything.
        controls: wishes for the same frames.
        scales: guidance scale of each of ``cfg.guided``: arrays, scalar or ``(B,)``.
        active_B: streams that advance; others keep their state and return zeros.
        reset_B: streams that start anew (same key) before this step.
    """
    ahead, frames, hop = cfg.lookahead(model), cfg.frames(model), cfg.hop
    if audio_BAD.shape[1] != hop + ahead:
        raise ValueError(f"a step takes hop + lookahead = {hop + ahead} frames of features")
    if hop > model.window:
        raise ValueError(f"hop {hop} is longer than the model's window {model.window}")
    batch = audio_BAD.shape[0]
    net = MotionModel(model)
    fresh = reset_B
    past_valid = state.past_valid & ~fresh[:, None]
    frame = jnp.where(fresh, 0, state.frame)

    # Features: K past, the window, and the encoder's look-ahead, which live modes do not have.
    missing = frames + ahead - (hop + ahead)
    audio = jnp.where(valid_BA[..., None], audio_BAD, 0.0)
    features = jnp.concatenate(
        [state.past_audio, audio, jnp.zeros((batch, missing, audio.shape[-1]))], axis=1
    )
    valid = jnp.concatenate([past_valid, valid_BA, jnp.zeros((batch, missing), bool)], axis=1)
    wishes = jax.tree.map(lambda x: x[:, :frames], controls)

    names, count = cfg.guided, 1 + len(cfg.guided)
    keep = guidance.branch_keep(names, batch)
    many = lambda x: guidance.repeat_branches(x, count)  # noqa: E731
    variables = {"params": params}
    tokens = net.apply(variables, many(features), many(valid), keep, method="encode")
    fixed = {
        "audio_BAD": tokens,
        "past_BKM": many(state.past_motion),
        "past_valid_BK": many(past_valid),
        "motion_valid_BT": jnp.ones((count * batch, frames), bool),
        "controls": jax.tree.map(many, wishes),
        "keep": keep,
    }

    def denoise(x_BTM: jax.Array, t: jax.Array) -> jax.Array:
        t_B = jnp.broadcast_to(t, (count * batch,))
        out: Any = net.apply(variables, many(x_BTM), t_B, method="denoise", **fixed)
        return guidance.combine(out, names, scales)

    schedule = model.make_schedule()
    x = samplers.sample(
        SAMPLERS[cfg.sampler],
        schedule,
        denoise,
        _frame_noise(state.key, frame, frames, 0),
        TIME_GRIDS[cfg.grid](schedule, cfg.steps),
        lambda i: _frame_noise(state.key, frame, frames, 1 + i),
    )
    motion = x[:, :hop]

    def roll(past: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([past, new], axis=1)[:, -model.past :]

    advanced = RollingState(
        past_motion=roll(state.past_motion, motion),
        past_audio=roll(state.past_audio, audio[:, :hop]),
        past_valid=roll(past_valid, jnp.ones((batch, hop), bool)),
        key=state.key,
        frame=frame + hop,
    )
    reset_only = state.replace(past_valid=past_valid, frame=frame)  # type: ignore[attr-defined]

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(active_B.reshape(batch, *(1,) * (a.ndim - 1)), a, b)

    new_state = jax.tree.map(choose, advanced, reset_only)
    return new_state, choose(motion, jnp.zeros_like(motion))


def _frame_noise(key_B: jax.Array, frame_B: jax.Array, frames: int, draw: Any) -> jax.Array:
    """Standard normal ``(B, frames, M)`` that depends on (stream key, draw, absolute frame)."""

    def one(key: jax.Array, frame: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, draw), frame)
        return jax.random.normal(key, (MOTION_DIM,), jnp.float32)

    index = frame_B[:, None] + jnp.arange(frames)[None]
    return jax.vmap(jax.vmap(one, (None, 0)))(key_B, index)
