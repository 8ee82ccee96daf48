"""Motion for a whole recording: the rolling step scanned over it.

The scan's body has fixed shapes and runs over a fixed number of hops; a longer recording calls the
same compiled scan again with the state handed on, so any length compiles once and memory stays
flat. Hops after the end are skipped, not computed. The default hop is the model's window (the
paper's windowed mode); with the hop of a live stream and the same features, controls, scales and
seed, the motion is the live stream's, bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.audio import features as audio_features
from vasa_jax.core import config as configs
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import Controls
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.generate import rolling
from vasa_jax.generate.rolling import (
    SAMPLERS,
    TEMPERATURE,
    RollingConfig,
    RollingState,
    sampler_of,
)
from vasa_jax.motion.conditions import CONDITION_NAMES
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.runtime.programs import Program

HOPS_PER_CALL = 4
# The paper guides gaze by 1.0 too. Here controls are added to every frame's token and are followed
# without guidance: 1.0 would double the angle.
DEFAULT_GUIDANCE = {"audio": 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateDefaults:
    """How a release's motion is best sampled; "generate" in its ``config.json``."""

    sampler: str = "ddim_lids"
    steps: int = 16
    grid: str = "uniform"
    guidance: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: dict(DEFAULT_GUIDANCE)
    )
    temperature: float = TEMPERATURE

    @staticmethod
    def of(table: Mapping[str, Any], space: MotionSpace) -> GenerateDefaults:
        """From JSON; what it does not say is as fits the space. UserError for what does not fit."""
        own = {} if "lids" in space.groups else {"sampler": "ddim"}
        defaults = configs.from_json(GenerateDefaults, {**own, **table})
        sampler_of(defaults.sampler, space)
        return defaults

    def __post_init__(self) -> None:
        for what, name, known in (
            ("sampler", self.sampler, SAMPLERS), ("grid", self.grid, TIME_GRIDS),
        ):  # fmt: skip
            if name not in known:
                raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
        unknown = set(self.guidance) - set(CONDITION_NAMES)
        if unknown or self.steps < 1:
            raise ValueError(f"guidance of {CONDITION_NAMES} and at least one step expected")


def generate_motion(
    model: MotionModelConfig,
    params: Any,
    stats: MotionStats | Mapping[str, Any],
    features_TD: np.ndarray,
    controls: Controls | None = None,
    *,
    seed: int = 0,
    sampler: str = "ddim",
    steps: int = 10,
    guidance: Mapping[str, float] | None = None,
    hop: int | None = None,
    ahead: int | None = None,
    grid: str = "uniform",
    temperature: float = TEMPERATURE,
    interval: tuple[float, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Physical motion ``(T, M)`` for features ``(T, D)`` of a recording.

    Args:
        stats: the release's motion statistics, as ``MotionStats`` or as the JSON table.
        controls: tracks over the T frames (leading shape ``(T,)``); None asks for nothing.
        guidance: scale per condition (equation 2); zero or absent means no branch for it.
        temperature: deviation of the noise that what is heard (the mouth) starts from; 1 is a fair
            sample.
        interval: diffusion times between which guidance acts; None: always.
        hop: frames per window, at most the model's window (the default).
        ahead: frames of sound after a hop that it may hear, as in a live stream; None: all.
        progress: called with (frames done, frames in all).

    Raises:
        UserError: unknown sampler or condition, one that is not for the model's space, or controls
            of another length.
    """
    space = model.motion_space
    table = stats if isinstance(stats, MotionStats) else MotionStats.from_json(stats, space)
    features_TD = np.asarray(features_TD, np.float32)
    total = features_TD.shape[0]
    controls = Controls.none(total) if controls is None else controls
    if controls.gaze_on.shape != (total,):
        raise UserError(f"controls cover {controls.gaze_on.shape[0]} frames, the sound has {total}")
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}; there are {', '.join(SAMPLERS)}")
    scales = dict(DEFAULT_GUIDANCE if guidance is None else guidance)
    for name in scales:
        if name not in CONDITION_NAMES:
            raise UserError(f"no condition {name!r} to guide; there are {CONDITION_NAMES}")
    scales = rolling.branches(scales)
    cfg = RollingConfig(
        hop=hop or model.window,
        ahead=ahead,
        sampler=sampler,
        steps=steps,
        grid=grid,
        guided=tuple(scales),
        temperature=temperature,
    )
    ahead = cfg.lookahead(model)
    chunk = cfg.hop * HOPS_PER_CALL
    num_chunks = -(-total // chunk)
    length = num_chunks * chunk + ahead

    def pad(x: Any) -> np.ndarray:
        x = np.asarray(x, np.float32)
        return np.concatenate([x, np.zeros((length - total, *x.shape[1:]), np.float32)])

    features_AD, rows = pad(features_TD), Controls(*(pad(x) for x in controls))
    rows = rows._replace(distance=np.where(rows.distance > 0, rows.distance, 1.0))
    valid_A = np.arange(length) < total
    scale_arrays = {n: np.asarray(s, np.float32) for n, s in scales.items()}
    bounds = None if interval is None else tuple(np.asarray(t, np.float32) for t in interval)
    state = rolling.kept_init_state(model, np.asarray([seed], np.uint32))
    out: list[np.ndarray] = []
    for i in range(num_chunks):
        part = slice(i * chunk, (i + 1) * chunk + ahead)
        state, motion = roll_chunk(
            model, cfg, params, state, features_AD[None, part], valid_A[None, part],
            Controls(*(x[None, part] for x in rows)), scale_arrays, bounds,
        )  # fmt: skip
        out.append(np.asarray(table.denormalize(np.asarray(motion)[0])))
        if progress is not None:
            progress(min((i + 1) * chunk, total), total)
    return np.concatenate(out)[:total] if out else np.zeros((0, space.dim), np.float32)


@functools.partial(Program, static=("model", "cfg"), donate=("state",))
def roll_chunk(
    model: MotionModelConfig,
    cfg: RollingConfig,
    params: Any,
    state: RollingState,
    features_BAD: jax.Array,
    valid_BA: jax.Array,
    controls: Controls,
    scales: Mapping[str, jax.Array],
    interval: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[RollingState, jax.Array]:
    """``lax.scan`` of the rolling step over ``features_BAD``, ``n * hop + lookahead`` frames.

    Returns the state after it and normalised motion ``(B, n * hop, M)``, the same bits as n calls
    of ``rolling.live_step``. ``state`` is donated: don't use it again. Where no stream has a valid
    frame in a hop, the step is skipped and zeros come out.
    """
    batch, length, _ = features_BAD.shape
    hop, ahead = cfg.hop, cfg.lookahead(model)
    count, dim = (length - ahead) // hop, model.motion_space.dim

    def cut(x: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, start, hop + ahead, axis=1)

    def body(state: RollingState, index: jax.Array):
        start = index * hop
        audio, valid = cut(features_BAD, start), cut(valid_BA, start)
        rows = jax.tree.map(lambda x: cut(x, start), controls)
        active = valid[:, :hop].any(1)

        def advance(state: RollingState):
            return rolling.step(
                params, model, cfg, state, audio, valid, rows, scales,
                active_B=active, reset_B=jnp.zeros((batch,), bool), interval=interval,
            )  # fmt: skip

        def rest(state: RollingState):
            return state, jnp.zeros((batch, hop, dim), jnp.float32)

        return jax.lax.cond(active.any(), advance, rest, state)

    state, motion = jax.lax.scan(body, state, jnp.arange(count))
    return state, jnp.moveaxis(motion, 0, 1).reshape(batch, count * hop, dim)


def speech_features(model: MotionModelConfig, samples: np.ndarray) -> np.ndarray:
    """Features ``(T, D)`` of a whole recording (mono, 16 kHz), in pieces of fixed shape.

    The pieces go through the streaming step, so any length compiles once.
    """
    piece = 640 * 250
    total = audio_features.num_frames(len(samples))
    padded = np.zeros(-(-len(samples) // piece) * piece, np.float32)
    padded[: len(samples)] = samples
    state = audio_features.init_state(model.features, 1)
    out = []
    for start in range(0, len(padded), piece):
        state, feats = audio_features.kept_step(
            model.features, state, padded[None, start : start + piece]
        )
        out.append(np.asarray(feats)[0])
    dim = model.features.dim
    return np.concatenate(out)[:total] if out else np.zeros((0, dim), np.float32)
