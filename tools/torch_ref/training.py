"""Losses and optimiser steps of both stages, as a PyTorch trainer would write them.

The random numbers and the geometry of a step come in with the batch: they have no parameters, and
with them given both sides have the same loss and the same gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.torch_ref.head import Pose
from tools.torch_ref.lite_face import LiteFace
from tools.torch_ref.motion import MotionModel
from tools.torch_ref.rolling import alpha_sigma
from tools.torch_ref.volumetric import VolumetricFace
from vasa_jax.core.arkit import EXPRESSION, LIPS
from vasa_jax.core.types import Controls
from vasa_jax.losses.closures import SHUT_CM
from vasa_jax.losses.diffusion import group_weights
from vasa_jax.motion.arkit.lips import LIP_GAP_CM
from vasa_jax.motion.latents import MotionStats
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig, learning_rate


def masked_mean(x_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """Mean over the valid frames (B,)."""
    total = torch.where(valid_BT, x_BT, 0.0).sum(1)
    return total / valid_BT.sum(1).clamp(min=1)


class MotionObjective(nn.Module):
    """``train.motion.drawn_loss``: a scalar from a batch whose random numbers are drawn."""

    def __init__(self, net: MotionModel, cfg: MotionTrainConfig, stats: MotionStats):
        super().__init__()
        self.net, self.cfg = net, cfg
        for name, value in (
            ("mean", stats.mean), ("std", stats.std),
            ("weights", group_weights(cfg.loss, stats.space)),
            ("lip_gap", np.float32(LIP_GAP_CM)),
        ):  # fmt: skip
            self.register_buffer(name, torch.from_numpy(np.array(value)), persistent=False)
        for name, numbers in (("heard", stats.space.heard_numbers), ("lips", LIPS)):
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    @staticmethod
    def with_noise_levels(cfg: MotionTrainConfig, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with alpha and sigma (B, 1, 1) of its times, computed on the host."""
        alpha, sigma = alpha_sigma(cfg.model, np.asarray(batch["drawn"]["t"]))
        levels = {"alpha": alpha[:, None, None], "sigma": sigma[:, None, None]}
        return {**batch, "drawn": {**batch["drawn"], **levels}}

    def forward(self, batch: dict[str, Any]) -> Tensor:
        cfg, drawn = self.cfg, batch["drawn"]
        k, w, keep = cfg.model.past, cfg.model.window, drawn["keep"]
        target = (batch["motion"] - self.mean) / self.std
        heard = batch["audio_valid"]
        audio_valid = torch.cat([heard[:, :k], heard[:, k:] & drawn["tail_audio"]], 1)
        motion_valid = batch["motion_valid"][:, k:] & drawn["tail_motion"]
        clean = target[:, k:]
        noisy = drawn["alpha"] * clean + drawn["sigma"] * drawn["noise"]
        tokens = self.net.encode(batch["features"], audio_valid, keep)
        prepared = self.net.prepare(
            tokens, target[:, :k] + drawn["past_noise"], batch["motion_valid"][:, :k],
            motion_valid, Controls(*batch["controls"]), keep,
        )  # fmt: skip
        x0 = self.net.denoise(noisy, drawn["t"], prepared)
        counted = motion_valid & audio_valid[:, k : k + w]
        total = self._motion(x0, clean, counted, batch["trust"]).mean()
        if cfg.loss.sealed:
            told = counted & keep["audio"][:, None]
            gap = self._unsealed(x0, batch["motion"][:, k:], told, batch["trust"])
            total = total + cfg.loss.sealed * gap.mean()
        heard = batch["motion_valid"] & audio_valid[:, : k + w] & keep["audio"][:, None]
        heard = torch.cat([heard[:, :k] & keep["past"][:, None], heard[:, k:]], 1)
        mouth, logits = self.net.heads(tokens)
        if cfg.loss.auxiliary:
            squared = (mouth - target[..., self.heard]).square().mean(-1)
            total = total + cfg.loss.auxiliary * masked_mean(squared, heard).mean()
        if cfg.loss.viseme and logits is not None:
            label = batch["viseme"].long()
            entropy = F.cross_entropy(
                logits.float().transpose(1, 2), label.clamp(min=0), reduction="none"
            )
            total = total + cfg.loss.viseme * masked_mean(entropy, heard & (label >= 0)).mean()
        return total

    def _motion(self, made: Tensor, target: Tensor, valid: Tensor, trust_BM: Tensor) -> Tensor:
        weights = (self.weights * trust_BM)[:, None]
        target = torch.where(valid[..., None], target, 0.0)
        made = torch.where(valid[..., None], made, 0.0)
        loss = masked_mean(((made - target).square() * weights).sum(-1), valid)
        if self.cfg.loss.velocity:
            both = valid[:, 1:] & valid[:, :-1]
            change = (made.diff(dim=1) - target.diff(dim=1)).square()
            loss = loss + self.cfg.loss.velocity * masked_mean((change * weights).sum(-1), both)
        return loss

    def _unsealed(self, x0: Tensor, target: Tensor, valid: Tensor, trust_BM: Tensor) -> Tensor:
        """Mean square gap in cm^2 of lips that are shut in the target (B,)."""

        def gap_cm(expression: Tensor) -> Tensor:
            return (expression @ self.lip_gap).clamp(min=0.0)

        # As what is shown: weights of expressions end at 0 and 1.
        made = (x0 * self.std + self.mean)[..., EXPRESSION].clamp(0.0, 1.0)
        shut = valid & (gap_cm(target[..., EXPRESSION]) < SHUT_CM)
        gap = gap_cm(torch.where(valid[..., None], made, 0.0))
        mean = masked_mean(torch.where(shut, gap.square(), 0.0), valid)
        return mean * trust_BM[:, self.lips].amin(-1)


def weighted_l1(made: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error per example (B,) of (B, 3, Y, X), pixels weighted by (B, 1, Y, X)."""
    error = (made - target).abs().mean(1, keepdim=True) * weight
    return error.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)


class LiteFaceObjective(nn.Module):
    """Pixel terms of ``train.face.FaceTask.losses`` on geometry that is given."""

    def __init__(self, net: LiteFace, corner: int):
        super().__init__()
        self.net, self.corner = net, corner

    def forward(self, batch: dict[str, Any]) -> Tensor:
        b = batch
        volume, z_id = self.net.encode_nets(b["source"], b["opening"], Pose(*b["source_pose"]))
        image, painted = self.net.decode(
            b["warped"], b["maps"], volume, z_id, Pose(*b["target_pose"]), self.corner
        )
        l1 = weighted_l1(image, b["target"], b["weight"]).mean()
        return l1 + 3.0 * ((painted - b["target"]).abs() * b["mouth"]).mean()


class FullFaceObjective(nn.Module):
    """The driven pass of ``train.passes.render_driven`` and its pixel distance to the driver."""

    def __init__(self, net: VolumetricFace):
        super().__init__()
        self.net = net

    def forward(self, batch: dict[str, Any]) -> Tensor:
        b, half = batch, len(batch["source"])
        z_dyn = self.net.dynamics(torch.cat([b["source_face"], b["driver_face"]]))
        appearance = self.net.encode(b["source"], b["source_mask"], b["source_pose"], z_dyn[:half])
        picture = self.net.decode(appearance, b["driver_pose"], z_dyn[half:])
        return weighted_l1(picture, b["driver"], b["driver_mask"]).mean()


class Trainer:
    """Forward, backward, clipping, fused AdamW and the weight average of one objective."""

    def __init__(
        self, objective: nn.Module, cfg: OptimConfig,
        compiled: Callable[[nn.Module], Callable] = lambda f: f, bfloat16: bool = False,
    ):  # fmt: skip
        self.cfg, self.objective, self.bfloat16 = cfg, compiled(objective), bfloat16
        self.params = [p for p in objective.parameters() if p.requires_grad]
        self.device = self.params[0].device
        groups = [
            {"params": [p for p in self.params if p.ndim >= 2], "weight_decay": cfg.weight_decay},
            {"params": [p for p in self.params if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=cfg.lr, betas=(cfg.b1, cfg.b2), eps=cfg.eps, fused=True
        )
        self.average = [p.detach().clone() for p in self.params]
        self.updates = 0

    def gradients(self, batch: dict[str, Any]) -> Tensor:
        """The loss; its gradients are in ``.grad`` afterwards."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self.objective(batch)
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """One step down the gradients."""
        cfg, n = self.cfg, self.updates
        if cfg.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.params, cfg.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = float(learning_rate(cfg, n))
        self.optimizer.step()
        decay = min(cfg.ema_decay, (1.0 + n) / (10.0 + n))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.params, 1.0 - decay)
        self.updates += 1

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        loss = self.gradients(batch)
        self.update()
        return loss
