"""The PyTorch forms of every part: eager or ``torch.compile``, float32 or bfloat16.

Compiled: Inductor without dynamic shapes, with CUDA graphs on a GPU ("reduce-overhead"); sampling
by gathers, which it fuses. Eager: ``F.grid_sample``. Inference folds the standardised weights; in
bfloat16 it keeps the weights of convolutions and products in that type and runs under autocast.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.side_by_side.scenes import FullScene, LiteScene, Scene, physical, window_inputs
from tools.side_by_side.scenes import motion_batch as make_motion_batch
from tools.side_by_side.xla_forms import Form, Outputs
from tools.torch_ref import lite_face, training, weights
from tools.torch_ref import rolling as twin_rolling
from tools.torch_ref.head import Pose, absolute_pose, drive, head_tensors
from tools.torch_ref.layers import channels_last, fold
from tools.torch_ref.motion import MotionModel
from tools.torch_ref.volumetric import VolumetricAppearance, VolumetricFace


def half_weights(net: nn.Module) -> nn.Module:
    """Weights of convolutions and linear maps to bfloat16, where ours computes in it."""
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            if not getattr(module, "keep_float32", False):
                module.to(torch.bfloat16)
    return net


class TorchForms:
    """Makes forms of one scene."""

    def __init__(self, scene: Scene, device: str, *, compiled: bool, bfloat16: bool):
        self.scene, self.device = scene, "cuda" if device == "gpu" else "cpu"
        self.is_compiled, self.bfloat16 = compiled, bfloat16
        self.sampling = "gather" if compiled else "grid"
        torch.manual_seed(0)
        if self.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        else:
            torch.set_num_threads(len(os.sched_getaffinity(0)))

    def compiled(self, function: Callable) -> Callable:
        if not self.is_compiled:
            return function
        mode = "reduce-overhead" if self.device == "cuda" else "default"
        return torch.compile(function, dynamic=False, mode=mode)

    def context(self) -> contextlib.ExitStack:
        """Inference, under autocast where asked for."""
        stack = contextlib.ExitStack()
        # Inference tensors do not go into compiled graphs everywhere; no_grad costs the same there.
        stack.enter_context(torch.no_grad() if self.is_compiled else torch.inference_mode())
        if self.bfloat16:
            stack.enter_context(torch.autocast(self.device, torch.bfloat16))
        return stack

    def put(self, tree: Any) -> Any:
        return weights.tensors(tree, self.device)

    def front(self, x: Any) -> Tensor:
        """An array (B, *spatial, C) on the device as (B, C, *spatial), channels-last memory."""
        return channels_last(self.put(np.moveaxis(np.asarray(x), -1, 1)))

    def loaded(
        self, net: nn.Module, params: Any, *, inference: bool = True, last: bool = True
    ) -> Any:
        net = weights.load(net, params, channels_last=last)
        if inference:
            net = fold(net)
            net = half_weights(net) if self.bfloat16 else net
            net.requires_grad_(False)
        return net.to(self.device)

    def done(self, value: Any) -> Any:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return value

    def timed(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        compiled = self.compiled(function)

        def run() -> Any:
            with self.context():
                if self.device == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()
                return self.done(compiled(*arguments))

        return run

    def make(self, name: str, batch: int) -> Form:
        if name in ("window", "guided"):
            return self.window(name, batch)
        if name == "train_motion":
            return self.train_motion(batch)
        kind = _Lite if isinstance(self.scene, LiteScene) else _Full
        return getattr(kind(self, self.scene), name)(batch)  # type: ignore[arg-type]

    def rolling_step(self, name: str, batch: int) -> Callable[..., Tensor]:
        cfg, model = self.scene.rolling(name), self.scene.motion
        net = self.loaded(MotionModel(model), self.scene.motion_params(name))
        twin = twin_rolling.Rolling(net, cfg, self.compiled)
        state = twin_rolling.RollingState.fresh(model, batch, self.device)
        named = self.put(window_inputs(model, cfg, batch))
        leading = [named.pop(n) for n in ("audio_BAD", "valid_BA", "controls", "scales")]

        def step(noise: Tensor | None = None) -> Tensor:
            with self.context():
                return twin.step(state, *leading, **named, noise=noise)[1]

        return step

    def noise(self, name: str, batch: int) -> Tensor:
        """What our step draws for fresh streams of seeds 0, 1, ..."""
        import jax.numpy as jnp

        from vasa_jax.generate import rolling

        cfg, model = self.scene.rolling(name), self.scene.motion
        state = rolling.init_state(model, jnp.arange(batch))
        drawn = rolling._frame_noise(state.key, state.frame, cfg.frames(model), 0)
        return self.put(np.asarray(drawn))

    def window(self, name: str, batch: int) -> Form:
        step = self.rolling_step(name, batch)

        def outputs() -> Outputs:
            return {"motion": step(self.noise(name, batch)).cpu().numpy()}

        return Form(lambda: self.done(step()), outputs)

    def end_to_end(
        self, name: str, frames: int, batch: int, draw: Callable[[Tensor], Tensor]
    ) -> Form:
        """Motion, then ``draw`` of ``batch`` frames at a time, pixels on the host."""
        step, stats = self.rolling_step(name, 1), self.scene.stats
        driving = self.scene.driving

        def run(noise: Tensor | None = None) -> np.ndarray:
            made = physical(stats, step(noise).cpu().numpy()[0])[:frames]
            if made.shape[1] != driving.shape[1]:
                made = np.resize(driving, (frames, driving.shape[1]))
            rows = torch.from_numpy(made.astype(np.float32))
            pieces = []
            for i in range(0, frames, batch):
                piece = draw(rows[i : i + batch].to(self.device))
                # A CUDA graph's output is overwritten by its next run.
                pieces.append(piece.clone() if piece.is_cuda else piece)
            return np.concatenate([piece.cpu().numpy() for piece in pieces])

        return Form(run, lambda: {"frames": run(self.noise(name, 1))[:2]})

    def training(self, objective: nn.Module, optim: Any, batch: Any) -> Form:
        objective = objective.train().to(self.device)

        def compiled(module: nn.Module) -> Callable:
            # CUDA graphs want static gradients; a trainer takes the default mode.
            return torch.compile(module, dynamic=False) if self.is_compiled else module

        trainer = training.Trainer(objective, optim, compiled, self.bfloat16)

        def outputs() -> Outputs:
            loss = trainer.gradients(batch)
            grads = [p.grad.float().square().sum() for p in trainer.params if p.grad is not None]
            norm = torch.stack(grads).sum().sqrt()
            return {"loss": loss.float().cpu().numpy(), "grad_norm": norm.cpu().numpy()}

        return Form(lambda: self.done(trainer(batch)), outputs)

    def train_motion(self, batch: int) -> Form:
        scene, cfg = self.scene, self.scene.train_motion
        net = self.loaded(
            MotionModel(cfg.model), scene.motion_params("train_motion"), inference=False
        )
        objective = training.MotionObjective(net, cfg, scene.stats)
        data = objective.with_noise_levels(cfg, make_motion_batch(cfg, batch))
        return self.training(objective, cfg.optim, self.put(data))


class _Lite:
    def __init__(self, forms: TorchForms, scene: LiteScene):
        self.forms, self.scene = forms, scene
        self.head = head_tensors(scene.head, forms.device)

    def net(self) -> lite_face.LiteFace:
        net = lite_face.LiteFace(self.scene.face, self.forms.sampling)
        return self.forms.loaded(net, self.scene.params["face"])

    def encode(self) -> Callable[[], lite_face.Appearance]:
        s, f, net = self.scene, self.forms, self.net()
        placed = f.put((s.identity, s.own, s.placement))
        image = f.front(s.image[None])
        return f.timed(lambda x, *fit: net.encode(self.head, x, *fit), image, *placed)

    def encoded(self) -> lite_face.Appearance:
        """The portrait's appearance, made eagerly in float32, as a renderer is given it."""
        plain = TorchForms(self.scene, _ours(self.forms), compiled=False, bfloat16=False)
        with torch.no_grad():
            s, net = self.scene, _Lite(plain, self.scene).net()
            placed = plain.put((s.identity, s.own, s.placement))
            return net.encode(self.head, plain.front(s.image[None]), *placed)

    def appearance(self, batch: int) -> Form:
        run = self.encode()

        def outputs() -> Outputs:
            made = run()
            volume = made.volume[0].movedim(0, -1).float()
            return {"volume": volume.cpu().numpy(), "z_id": made.z_id[0].float().cpu().numpy()}

        return Form(run, outputs)

    def drawer(self) -> Callable[[Tensor], Tensor]:
        net, given, f = self.net(), self.encoded(), self.forms

        def render(motion: Tensor) -> Tensor:
            return lite_face.to_uint8(net.render(self.head, given, motion))

        return _drawing(f, render)

    def render(self, batch: int) -> Form:
        draw, motion = self.drawer(), self.forms.put(self.scene.driving[:batch])
        return Form(
            lambda: self.forms.done(draw(motion)), lambda: {"frames": draw(motion).cpu().numpy()}
        )

    def live(self, batch: int) -> Form:
        return self.forms.end_to_end("live", 2, 1, self.drawer())

    def offline(self, batch: int) -> Form:
        many = 25 if self.forms.device == "cuda" else 5
        return self.forms.end_to_end("window", 50, many, self.drawer())

    def poses(self, count: int) -> Pose:
        s, f = self.scene, self.forms
        from vasa_jax.face.head.head import resting_share

        return drive(*f.put((s.own, s.placement, s.driving[:count], resting_share())))

    def warp(self, batch: int) -> Form:
        rng, f, net = np.random.default_rng(9), self.forms, self.net()
        volume = rng.standard_normal((batch, *self.scene.face.volume), np.float32)
        offset = rng.normal(0, 0.05, (*volume.shape[:-1], 3)).astype(np.float32)

        def warp(volume: Tensor, pose: Pose, offset: Tensor) -> Tensor:
            return net.resample(volume, pose, offset, inwards=False)

        run = f.timed(warp, f.front(volume), self.poses(batch), f.put(offset))
        return Form(run, lambda: {"volume": run().movedim(1, -1).cpu().numpy()})

    def flow(self, batch: int) -> Form:
        net, given = self.net(), self.encoded()
        run = self.forms.timed(lambda pose: net.warp(self.head, given, pose), self.poses(batch))
        return Form(run, lambda: {"warped": run()[0].movedim(1, -1).cpu().numpy()})

    def train_face(self, batch: int) -> Form:
        s, f = self.scene, self.forms
        data = s.face_batch(batch)
        placement = data.pop("placement")
        poses = {}
        for side in ("source", "target"):
            motion = data.pop(f"{side}_motion")
            poses[f"{side}_pose"] = absolute_pose(*f.put((motion, placement)))
        net = f.loaded(
            lite_face.LiteFace(s.face, f.sampling), s.params["face"], inference=False
        )  # fmt: skip
        batch_ = {name: f.front(x) for name, x in data.items()} | poses
        return f.training(training.LiteFaceObjective(net, s.corner), s.face_optim, batch_)


class _Full:
    def __init__(self, forms: TorchForms, scene: FullScene):
        self.forms, self.scene = forms, scene

    def net(self) -> VolumetricFace:
        s = self.scene
        return self.forms.loaded(VolumetricFace(s.face, self.forms.sampling), s.face_params(s.face))

    def appearance(self, batch: int) -> Form:
        s, f, net = self.scene, self.forms, self.net()
        pose, z_dyn = f.put((s.driving[:1, :7], s.driving[:1, 7:]))
        run = f.timed(net.encode, f.front(s.image[None]), f.front(s.mask[None]), pose, z_dyn)

        def outputs() -> Outputs:
            made = run()._asdict()
            return {n: x.movedim(1, -1).float().cpu().numpy() for n, x in made.items()}

        return Form(run, outputs)

    def drawer(self) -> Callable[[Tensor], Tensor]:
        f, net = self.forms, self.net()
        dtype = torch.bfloat16 if f.bfloat16 else torch.float32
        given = VolumetricAppearance(
            **{n: f.front(x).to(dtype) for n, x in self.scene.appearance().items()}
        )
        return _drawing(f, lambda motion: lite_face.to_uint8(net.render(given, motion)))

    def render(self, batch: int) -> Form:
        draw, motion = self.drawer(), self.forms.put(self.scene.driving[:batch])
        return Form(
            lambda: self.forms.done(draw(motion)), lambda: {"frames": draw(motion).cpu().numpy()}
        )

    def live(self, batch: int) -> Form:
        return self.forms.end_to_end("live", 2, 1, self.drawer())

    def offline(self, batch: int) -> Form:
        return self.forms.end_to_end("window", 50, 5, self.drawer())

    def warp(self, batch: int) -> Form:
        rng, f, s = np.random.default_rng(9), self.forms, self.scene
        volume = rng.standard_normal((batch, *s.face.volume), np.float32)
        offset = rng.normal(0, 0.05, (*volume.shape[:-1], 3)).astype(np.float32)
        net = VolumetricFace.__new__(VolumetricFace)
        nn.Module.__init__(net)  # the sampling alone: no weights of the nets are needed
        net.form = f.sampling
        dtype = torch.bfloat16 if f.bfloat16 else torch.float32
        run = f.timed(
            lambda v, pose, o: net.resample(v, pose, o, inwards=False),
            f.front(volume).to(dtype), f.put(s.driving[:batch, :7]), f.put(offset),
        )  # fmt: skip
        return Form(run, lambda: {"volume": run().movedim(1, -1).float().cpu().numpy()})

    def train_face(self, batch: int) -> Form:
        s, f = self.scene, self.forms
        cfg = s.training_face(_ours(f))
        # On a CPU the backward pass of narrow channels-last convolutions corrupts PyTorch's heap
        # (2.13, oneDNN 3.12, AVX2): the smoke sizes train in the default layout there.
        last = f.device == "cuda"
        net = f.loaded(
            VolumetricFace(cfg, f.sampling), s.face_params(cfg), inference=False, last=last
        )
        net.dynamics.dropout.p = 0.0
        data = s.face_batch(cfg, batch)
        placed = {n: f.put(x) if n.endswith("_pose") else f.front(x) for n, x in data.items()}
        if not last:
            placed = {n: x.contiguous() for n, x in placed.items()}
        return f.training(training.FullFaceObjective(net), s.face_optim, placed)


def _ours(forms: TorchForms) -> str:
    return "gpu" if forms.device == "cuda" else "cpu"


def _drawing(forms: TorchForms, render: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    compiled = forms.compiled(render)

    def draw(motion: Tensor) -> Tensor:
        with forms.context():
            if motion.is_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            return compiled(motion)

    return draw
