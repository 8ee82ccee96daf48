"""Stage 2's networks: audio encoder and motion transformer (``vasa_jax/motion``, ``audio``).

What does not depend on the diffusion time (audio, past, controls) is embedded once per window by
``MotionModel.prepare``; ``denoise`` then runs once per sampler step. XLA finds the same invariant
part of its loop by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core.types import Controls
from vasa_jax.motion.conditions import CONTROL_NAMES
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.motion.transformer import TransformerConfig

NORM_EPSILON = 1e-6  # of flax; torch's own is 1e-5
Keep = Mapping[str, Tensor]  # condition -> (B,) bool; a missing name is kept


class AudioEncoder(nn.Module):
    """Features (B, T, D) and their validity (B, T) to tokens (B, T, width)."""

    def __init__(self, cfg: EncoderConfig, features: int):
        super().__init__()
        self.reach = (cfg.left, cfg.right)
        taps = cfg.left + 1 + cfg.right
        self.null = nn.Parameter(torch.zeros(features))
        self.read_in = nn.Linear(features + 1, cfg.hidden)
        self.read_out = nn.Linear(cfg.hidden, cfg.width)
        blocks = range(cfg.num_blocks)
        self.norm = nn.ModuleList(nn.LayerNorm(cfg.width, NORM_EPSILON) for _ in blocks)
        self.conv = nn.ModuleList(nn.Conv1d(cfg.width, cfg.width, taps) for _ in blocks)
        self.mix = nn.ModuleList(nn.Linear(cfg.width, cfg.width) for _ in blocks)
        self.norm_out = nn.LayerNorm(cfg.width, NORM_EPSILON)
        self.absent = nn.Parameter(torch.zeros(cfg.width))

    def forward(self, features_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        valid = valid_BT[..., None]
        x = torch.where(valid, features_BTD, self.null)
        x = self.read_in(torch.cat([x, valid.to(x.dtype)], -1))
        x = self.read_out(F.gelu(x, approximate="tanh"))
        for norm, conv, mix in zip(self.norm, self.conv, self.mix, strict=True):
            h = conv(F.pad(norm(x).transpose(1, 2), self.reach)).transpose(1, 2)
            x = x + mix(F.gelu(h, approximate="tanh"))
        return torch.where(valid, self.norm_out(x), self.absent)


class ControlEmbedding(nn.Module):
    """Controls per frame to vectors (B, T, width), a learned null for what is not there."""

    def __init__(self, width: int):
        super().__init__()
        self.gaze, self.distance = nn.Linear(2, width), nn.Linear(1, width)
        self.emotion = nn.Linear(8, width)
        self.null_gaze, self.null_distance, self.null_emotion = (
            nn.Parameter(torch.zeros(width)) for _ in range(3)
        )

    def forward(self, controls: Controls, keep: Keep) -> Tensor:
        values = {
            "gaze": (controls.gaze / 0.2, controls.gaze_on),
            "distance": (-torch.log(controls.distance)[..., None] / 0.15, controls.distance_on),
            "emotion": (controls.emotion, controls.emotion_on),
        }
        total: Tensor | None = None
        for name in CONTROL_NAMES:
            value, on = values[name]
            asked = on > 0.5
            if name in keep:
                asked = asked & keep[name][:, None]
            asked = asked[..., None]
            code = getattr(self, name)(torch.where(asked, value, 0.0))
            code = torch.where(asked, code, getattr(self, f"null_{name}"))
            total = code if total is None else total + code
        assert total is not None
        return total


class TimeEmbedding(nn.Module):
    """A vector for the diffusion time t in [0, 1]."""

    def __init__(self, width: int):
        super().__init__()
        self.in_, self.out = nn.Linear(128, width), nn.Linear(width, width)
        ratio = np.arange(64, dtype=np.float32) / 63
        frequency = (1.0 / (4.0 * (1000.0 / 4.0) ** ratio)).astype(np.float32)
        self.register_buffer("frequency", torch.from_numpy(frequency), persistent=False)

    def forward(self, t_B: Tensor) -> Tensor:
        angle = 1000.0 * t_B[:, None] * self.frequency
        return self.out(F.silu(self.in_(torch.cat([angle.sin(), angle.cos()], -1))))


def rotary_tables(position_L: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (L, 1, size / 2) of the rotary code, as ``vasa_jax.nn.attention``."""
    half = size // 2
    frequency = 200.0 ** (-torch.arange(half, device=position_L.device) / half)
    angle = position_L.to(torch.float32)[:, None, None] * frequency
    return angle.cos(), angle.sin()


def rotary(x_BLHK: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = tables
    a, b = x_BLHK.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x_BLHK.dtype)


class SelfAttention(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        b, length, width = x_BLD.shape
        q, k, v = self.qkv(x_BLD).view(b, length, 3, self.num_heads, -1).unbind(2)
        q, k = rotary(q, tables), rotary(k, tables)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask
        )
        return self.out(out.transpose(1, 2).reshape(b, length, width))


class Block(nn.Module):
    """One block, modulated by (B, 6, D): shift, scale, gate; twice."""

    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        width = cfg.width
        hidden = int(cfg.mlp_ratio * width)
        self.modulation = nn.Parameter(torch.zeros(6, width))
        self.attention = SelfAttention(width, cfg.num_heads)
        self.mlp_in, self.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x_BLD: Tensor, modulation_B6D: Tensor, tables, mask) -> Tensor:
        m = (modulation_B6D + self.modulation)[:, :, None].unbind(1)
        width = x_BLD.shape[-1:]
        h = F.layer_norm(x_BLD, width, eps=NORM_EPSILON) * (1 + m[1]) + m[0]
        x_BLD = x_BLD + m[2] * self.attention(h, tables, mask)
        h = F.layer_norm(x_BLD, width, eps=NORM_EPSILON) * (1 + m[4]) + m[3]
        return x_BLD + m[5] * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        self.modulation = nn.Linear(cfg.width, 6 * cfg.width)
        self.block = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width, NORM_EPSILON)

    def forward(self, x_BLD: Tensor, time_BD: Tensor, tables, mask) -> Tensor:
        modulation = self.modulation(F.silu(time_BD)).view(len(x_BLD), 6, -1)
        for block in self.block:
            x_BLD = block(x_BLD, modulation, tables, mask)
        return self.norm(x_BLD)


class Prepared(NamedTuple):
    """What of a window does not depend on the diffusion time."""

    condition_BD: Tensor  # of the condition token, before the time
    motion_BTD: Tensor  # added to each noisy frame's token
    past_BKD: Tensor
    audio_BAD: Tensor | None  # audio tokens, where the model has them
    motion_valid_BT: Tensor | None  # None: all frames are
    mask: Tensor | None  # (B, 1, 1, L) bool, of keys; None: all are valid
    tables: tuple[Tensor, Tensor]


class MotionTransformer(nn.Module):
    """The paper's H(X_t, t, C), as ``vasa_jax.motion.transformer``."""

    def __init__(self, cfg: TransformerConfig, audio_width: int, dim: int):
        super().__init__()
        self.cfg = c = cfg
        self.time, self.controls = TimeEmbedding(c.width), ControlEmbedding(c.width)
        self.condition = nn.Linear(c.width, c.width)
        self.motion_in, self.past_in = (nn.Linear(dim, c.width) for _ in range(2))
        kinds = ["condition", "motion", "past_motion"]
        if c.audio_tokens:
            self.audio_in = nn.Linear(audio_width, c.width)
            kinds += ["audio", "past_audio"]
        if c.align_audio:
            self.align_audio = nn.Linear(audio_width, c.width)
        for name in (*(f"type_{k}" for k in kinds), "null_past"):
            setattr(self, name, nn.Parameter(torch.zeros(c.width)))
        self.blocks = Transformer(c)
        self.out = nn.Linear(c.width, dim)

    def prepare(
        self, audio_BAD: Tensor, past_BKM: Tensor, past_valid_BK: Tensor,
        motion_valid_BT: Tensor | None, controls: Controls, keep: Keep,
    ) -> Prepared:  # fmt: skip
        c, (batch, past) = self.cfg, past_BKM.shape[:2]
        frames = audio_BAD.shape[1] - past
        control_BTD = self.controls(controls, keep)
        if motion_valid_BT is None:
            mean = control_BTD.mean(1)
        else:
            weight = motion_valid_BT[..., None].to(control_BTD.dtype)
            mean = (control_BTD * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        condition = self.condition(mean) + self.type_condition
        given = past_valid_BK[..., None]
        clean = self.past_in(torch.where(given, past_BKM, 0.0))
        past_BKD = torch.where(given, clean, self.null_past) + self.type_past_motion
        motion_BTD = self.type_motion.expand(batch, frames, -1)
        if c.align_audio:
            aligned = self.align_audio(audio_BAD)
            motion_BTD = motion_BTD + aligned[:, past:]
            past_BKD = past_BKD + aligned[:, :past]
        if c.frame_controls:
            motion_BTD = motion_BTD + control_BTD
        device = past_BKM.device
        before = torch.arange(-past, 0, device=device)
        window = torch.arange(frames, device=device)
        positions = [torch.zeros(1, dtype=window.dtype, device=device), before, window]
        tokens = None
        if c.audio_tokens:
            heard = self.audio_in(audio_BAD)
            tokens = torch.cat(
                [heard[:, :past] + self.type_past_audio, heard[:, past:] + self.type_audio], 1
            )
            positions = [before, window, *positions]
        mask = None
        if motion_valid_BT is not None:
            always = torch.ones(batch, 1 + past, dtype=torch.bool, device=device)
            seen = [always, motion_valid_BT]
            if c.audio_tokens:
                seen = [always[:, 1:], motion_valid_BT, *seen]
            mask = torch.cat(seen, 1)[:, None, None]
        tables = rotary_tables(torch.cat(positions), c.width // c.num_heads)
        return Prepared(condition, motion_BTD, past_BKD, tokens, motion_valid_BT, mask, tables)

    def forward(self, noisy_BTM: Tensor, t_B: Tensor, prepared: Prepared) -> Tensor:
        p, frames = prepared, noisy_BTM.shape[1]
        if p.motion_valid_BT is not None:
            noisy_BTM = torch.where(p.motion_valid_BT[..., None], noisy_BTM, 0.0)
        time_BD = self.time(t_B)
        motion_BTD = self.motion_in(noisy_BTM) + p.motion_BTD
        parts = [(p.condition_BD + time_BD)[:, None], p.past_BKD, motion_BTD]
        if p.audio_BAD is not None:
            parts.insert(0, p.audio_BAD)
        x_BLD = self.blocks(torch.cat(parts, 1), time_BD, p.tables, p.mask)
        return self.out(x_BLD[:, -frames:]).float()


class MotionModel(nn.Module):
    """Audio encoder, auxiliary heads and transformer under one set of weights; predicts x0."""

    def __init__(self, cfg: MotionModelConfig):
        super().__init__()
        if cfg.prediction != "x0":
            raise ValueError(f"the twin predicts x0, not {cfg.prediction}")
        self.cfg = cfg
        width = cfg.encoder.width
        self.audio = AudioEncoder(cfg.encoder, cfg.features.dim)
        self.transformer = MotionTransformer(cfg.transformer, width, cfg.motion_space.dim)
        self.mouth_head = nn.Linear(width, len(cfg.motion_space.heard_numbers))
        if cfg.num_visemes:
            self.viseme_head = nn.Linear(width, cfg.num_visemes)

    def encode(self, features_BAD: Tensor, valid_BA: Tensor, keep: Keep) -> Tensor:
        """Audio tokens (B, K + T, width) of features (B, K + T + lookahead, D)."""
        k, length = self.cfg.past, valid_BA.shape[1]
        parts = [valid_BA[:, :k], valid_BA[:, k:]]
        for i, name in enumerate(("past", "audio")):
            if name in keep:
                parts[i] = parts[i] & keep[name][:, None]
        tokens = self.audio(features_BAD, torch.cat(parts, 1))
        return tokens[:, : length - self.cfg.lookahead_frames]

    def prepare(
        self, audio_BAD: Tensor, past_BKM: Tensor, past_valid_BK: Tensor,
        motion_valid_BT: Tensor | None, controls: Controls, keep: Keep,
    ) -> Prepared:  # fmt: skip
        """Everything of ``denoise`` that comes before the diffusion time."""
        if "past" in keep:
            past_valid_BK = past_valid_BK & keep["past"][:, None]
        return self.transformer.prepare(
            audio_BAD, past_BKM, past_valid_BK, motion_valid_BT, controls, keep
        )

    def denoise(self, noisy_BTM: Tensor, t_B: Tensor, prepared: Prepared) -> Tensor:
        """The estimate of the clean, normalised motion (B, T, M)."""
        return self.transformer(noisy_BTM, t_B, prepared)

    def heads(self, audio_BAD: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = self.viseme_head(audio_BAD) if self.cfg.num_visemes else None
        return self.mouth_head(audio_BAD), logits
