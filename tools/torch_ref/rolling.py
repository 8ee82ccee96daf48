"""Guidance, DDIM and the rolling step (``vasa_jax/generate/rolling.py``) for B streams.

Noise is drawn by torch's own generator, or given, which is how parity is checked: ours is a
function of (key, frame) that torch has no counterpart of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.torch_ref.motion import MotionModel, Prepared
from vasa_jax.core.types import Controls
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.generate.rolling import RollingConfig, temperatures
from vasa_jax.motion.model import MotionModelConfig


def alpha_sigma(cfg: MotionModelConfig, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise at ``times``, float32, in closed form on the host."""
    schedule: Any = cfg.make_schedule()
    if cfg.schedule == "linear":
        sigma = schedule.margin + (1.0 - 2.0 * schedule.margin) * times
        return (1.0 - sigma).astype(np.float32), sigma.astype(np.float32)
    low, high = (np.arctan(np.exp(-0.5 * x)) for x in (schedule.log_snr_max, schedule.log_snr_min))
    theta = low + times.astype(np.float64) * (high - low)
    return np.cos(theta).astype(np.float32), np.sin(theta).astype(np.float32)


def repeat(x: Any, count: int) -> Any:
    """Tensors (and tuples of them) stacked ``count`` times: branch-major, as our guidance."""
    if count == 1 or x is None:
        return x
    if isinstance(x, Tensor):
        return torch.cat([x] * count)
    return type(x)(*(repeat(part, count) for part in x))


@dataclasses.dataclass
class RollingState:
    """Everything that survives between steps, for B streams."""

    past_motion: Tensor  # (B, K, M) normalised
    past_audio: Tensor  # (B, K, D)
    past_valid: Tensor  # (B, K) bool
    past_heard: Tensor  # (B, K) bool
    frame: Tensor  # (B,) int64

    @staticmethod
    def fresh(cfg: MotionModelConfig, batch: int, device: str | torch.device) -> RollingState:
        def none(*shape: int, dtype=torch.float32) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=device)

        k = cfg.past
        return RollingState(
            none(k, cfg.motion_space.dim), none(k, cfg.features.dim), none(k, dtype=torch.bool),
            none(k, dtype=torch.bool), none(dtype=torch.int64),
        )  # fmt: skip


class Rolling:
    """The rolling step of one model in one mode.

    ``compiled`` replaces the two functions that hold all the work, the embedding of a window and
    one sampler step; the loop over the few steps stays in Python, as their number is small.
    """

    def __init__(
        self, net: MotionModel, cfg: RollingConfig,
        compiled: Callable[[Callable], Callable] = lambda f: f,
    ):  # fmt: skip
        if cfg.sampler != "ddim":
            raise ValueError(f"the twin samples by ddim, not {cfg.sampler}")
        self.net, self.cfg, model = net, cfg, net.cfg
        device = next(net.parameters()).device
        times = np.asarray(TIME_GRIDS[cfg.grid](model.make_schedule(), cfg.steps))
        alpha, sigma = alpha_sigma(model, times)
        # Rows of (t, alpha_t, sigma_t, alpha_s, sigma_s): tensors, so that no step compiles anew.
        rows = np.stack([times[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]], 1)
        self.rows = list(torch.from_numpy(rows.astype(np.float32)).to(device).unbind(0))
        scale = temperatures(model.motion_space, cfg.temperature)[0, 0]
        self.temperature = torch.from_numpy(scale).to(device)
        self._embed, self._ddim = compiled(self.embed), compiled(self.ddim)

    def embed(
        self, features: Tensor, valid: Tensor, past: Tensor, past_valid: Tensor, rows: Controls
    ) -> Prepared:
        """The sound encoded and all branches of guidance prepared, (1 + C) B rows."""
        names, batch = self.cfg.guided, len(past)
        count = 1 + len(names)
        branch = torch.arange(count, device=past.device).repeat_interleave(batch)
        keep = {name: branch != 1 + i for i, name in enumerate(names)}
        tokens = self.net.encode(repeat(features, count), repeat(valid, count), keep)
        return self.net.prepare(
            tokens, repeat(past, count), repeat(past_valid, count), None, repeat(rows, count),
            keep,
        )  # fmt: skip

    def ddim(
        self, x: Tensor, row: Tensor, prepared: Prepared, scales: tuple[Tensor, ...]
    ) -> Tensor:
        """One guided step of deterministic DDIM."""
        t, alpha_t, sigma_t, alpha_s, sigma_s = row.unbind(0)
        count = 1 + len(scales)
        out = self.net.denoise(repeat(x, count), t.expand(count * len(x)), prepared)
        full, *others = out.chunk(count)
        x0 = full
        for scale, other in zip(scales, others, strict=True):
            x0 = x0 + scale.reshape(-1, 1, 1) * (full - other)
        return alpha_s * x0 + sigma_s * ((x - alpha_t * x0) / sigma_t)

    def sample(self, prepared: Prepared, noise: Tensor, scales: tuple[Tensor, ...]) -> Tensor:
        """Motion (B, T, M) from standard normal noise."""
        x = noise * self.temperature
        for row in self.rows:
            if x.is_cuda:  # a CUDA graph's output is overwritten by its next run
                torch.compiler.cudagraph_mark_step_begin()
            x = self._ddim(x, row, prepared, scales)
            x = x.clone() if x.is_cuda else x
        return x

    def step(
        self, state: RollingState, audio_BAD: Tensor, valid_BA: Tensor, controls: Controls,
        scales: Mapping[str, Tensor], *, active_B: Tensor, reset_B: Tensor,
        noise: Tensor | None = None,
    ) -> tuple[RollingState, Tensor]:  # fmt: skip
        """The next ``hop`` frames (B, hop, M) and the state after them; see our ``step``."""
        model, cfg = self.net.cfg, self.cfg
        frames, hop, batch = cfg.frames(model), cfg.hop, len(audio_BAD)
        past_valid = state.past_valid & ~reset_B[:, None]
        past_heard = state.past_heard & ~reset_B[:, None]
        frame = torch.where(reset_B, 0, state.frame)
        missing = frames + model.lookahead_frames - audio_BAD.shape[1]
        audio = torch.where(valid_BA[..., None], audio_BAD, 0.0)
        features = torch.cat([state.past_audio, audio], 1)
        features = torch.nn.functional.pad(features, (0, 0, 0, missing))
        valid = torch.cat([past_heard, valid_BA], 1)
        valid = torch.nn.functional.pad(valid, (0, missing))
        rows = Controls(*(_held(x, frames) for x in controls))
        prepared = self._embed(features, valid, state.past_motion, past_valid, rows)
        if audio.is_cuda:
            prepared = _cloned(prepared)
        if noise is None:
            noise = torch.randn(batch, frames, model.motion_space.dim, device=audio.device)
        motion = self.sample(prepared, noise, tuple(scales[n] for n in cfg.guided))[:, :hop]

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(active_B.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        def roll(past: Tensor, new: Tensor) -> Tensor:
            return torch.cat([past, new], 1)[:, -model.past :]

        there = torch.ones(batch, hop, dtype=torch.bool, device=audio.device)
        new_state = RollingState(
            choose(roll(state.past_motion, motion), state.past_motion),
            choose(roll(state.past_audio, audio[:, :hop]), state.past_audio),
            choose(roll(past_valid, there), past_valid),
            choose(roll(past_heard, valid_BA[:, :hop]), past_heard),
            choose(frame + hop, frame),
        )
        return new_state, choose(motion, torch.zeros_like(motion))


def _held(x: Tensor, frames: int) -> Tensor:
    """The first ``frames`` along axis 1; the last one repeated where there are fewer."""
    short = max(0, frames - x.shape[1])
    return torch.cat([x[:, :frames], x[:, -1:].repeat_interleave(short, 1)], 1)


def _cloned(tree: Any) -> Any:
    """A copy that outlives the next run of the CUDA graph that made it."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if tree is None:
        return None
    parts = [_cloned(part) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
