"""The XLA form of every part: the functions that releases and trainers run, compiled by jit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tools.side_by_side.scenes import BFLOAT16, FullScene, LiteScene, Scene, physical, window_inputs
from tools.side_by_side.scenes import motion_batch as make_motion_batch
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.pose import canonical_from_view
from vasa_jax.face.model import to_uint8
from vasa_jax.face.volume import decoder as volume_decoder
from vasa_jax.face.volume.autoencoder import VolumetricAppearance, VolumetricAutoencoder
from vasa_jax.face.warp import decoder as renderer
from vasa_jax.face.warp.autoencoder import FaceAutoencoder
from vasa_jax.face.warp.geometry import Maps
from vasa_jax.generate import rolling
from vasa_jax.losses.reconstruction import weighted_l1
from vasa_jax.train.motion import drawn_loss
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState

Outputs = dict[str, np.ndarray]


class NotOffered(Exception):
    """This form does not exist for this part; the text says why."""


class Form(NamedTuple):
    """One part in one form: ``run`` is timed and returns when the result is there."""

    run: Callable[[], Any]
    outputs: Callable[[], Outputs]


def _timed(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Compiled and called on device arrays."""
    placed = jax.device_put(arguments)
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*placed))


class XlaForms:
    """Makes forms of one scene."""

    def __init__(self, scene: Scene, device: str, bfloat16: bool):
        self.scene, self.device, self.bfloat16 = scene, device, bfloat16
        self.motion = scene.motion
        if bfloat16:
            self.motion = dataclasses.replace(scene.motion, precision=BFLOAT16)

    def make(self, name: str, batch: int) -> Form:
        if name in ("window", "guided"):
            return self.window(name, batch)
        if name == "train_motion":
            return self.train_motion(batch)
        if isinstance(self.scene, LiteScene):
            if self.bfloat16:
                raise NotOffered("the lite face computes in float32")
            return getattr(_Lite(self, self.scene), name)(batch)
        return getattr(_Full(self, self.scene), name)(batch)

    def rolling_step(self, name: str, batch: int) -> Callable[[], Any]:
        """A step of fresh streams that returns the motion on the device."""
        cfg, model = self.scene.rolling(name), self.motion
        inputs = window_inputs(model, cfg, batch)
        state = rolling.init_state(model, jnp.arange(batch))
        params = jax.device_put(self.scene.motion_params(name))
        placed = jax.device_put(inputs)

        @jax.jit
        def step(params, state, inputs):
            named = dict(inputs)
            leading = [named.pop(n) for n in ("audio_BAD", "valid_BA", "controls", "scales")]
            return rolling.step(params, model, cfg, state, *leading, **named)

        return lambda: step(params, state, placed)[1]

    def window(self, name: str, batch: int) -> Form:
        step = self.rolling_step(name, batch)
        run = lambda: jax.block_until_ready(step())  # noqa: E731
        return Form(run, lambda: {"motion": np.asarray(step())})

    def end_to_end(self, name: str, frames: int, batch: int, draw: Callable[[Any], Any]) -> Form:
        """Motion, then ``draw`` of ``batch`` frames at a time, pixels on the host."""
        step, stats = self.rolling_step(name, 1), self.scene.stats
        driving = self.scene.driving

        def run() -> np.ndarray:
            made = physical(stats, np.array(step())[0])[:frames]
            if made.shape[1] != driving.shape[1]:  # the full face is not driven by these 54
                made = np.resize(driving, (frames, driving.shape[1]))
            pieces = [draw(made[i : i + batch]) for i in range(0, frames, batch)]
            return np.concatenate([np.asarray(piece) for piece in pieces])

        return Form(run, lambda: {"frames": run()[:2]})

    def training(self, params: Any, optim: OptimConfig, loss: Callable, batch: Any) -> Form:
        """An update of a state that is carried on; outputs are the loss of the first batch."""
        tx, placed = make_optimizer(optim), jax.device_put(batch)
        state = TrainState.create(jax.device_put(params), tx, jax.random.key(0))
        box = [state]

        # optax mixes int32 counts with float32, the nets' biases broadcast.
        update = jax.jit(lambda s, b: descend(optim, tx, loss, s, b), donate_argnums=0)

        def run() -> Any:
            box[0], metrics = update(box[0], placed)
            return jax.block_until_ready(metrics)

        def outputs() -> Outputs:
            metrics = run()
            return {name: np.asarray(metrics[name]) for name in ("loss", "grad_norm")}

        return Form(run, outputs)

    def train_motion(self, batch: int) -> Form:
        scene = self.scene
        cfg = dataclasses.replace(scene.train_motion, model=self.motion)
        data = make_motion_batch(cfg, batch)

        def loss(params, drawn):
            return drawn_loss(cfg, scene.stats, params, drawn)

        return self.training(scene.motion_params("train_motion"), cfg.optim, loss, data)


class _Lite:
    def __init__(self, forms: XlaForms, scene: LiteScene):
        self.forms, self.scene = forms, scene
        self.model = FaceAutoencoder(scene.face, scene.head)
        self.params = jax.device_put(scene.params["face"])

    def portrait(self) -> tuple[Any, ...]:
        s = self.scene
        return self.params, self.model.head, s.image, s.identity, s.own, s.placement

    def encoded(self) -> Any:
        return self.model._encode(*self.portrait())

    def appearance(self, batch: int) -> Form:
        run = _timed(self.model.encode, *self.portrait())

        def outputs() -> Outputs:
            made = run()
            return {"volume": np.asarray(made.volume), "z_id": np.asarray(made.z_id)}

        return Form(run, outputs)

    def drawer(self) -> Callable[[np.ndarray], jax.Array]:
        """As ``Talker`` renders: motions from the host, uint8 pictures on the device."""
        model, appearance = self.model, self.encoded()
        render = jax.jit(
            lambda params, head, appearance, motion: to_uint8(
                model.render(params, head, appearance, motion).image
            )
        )
        return lambda motion: render(self.params, model.head, appearance, motion)

    def render(self, batch: int) -> Form:
        draw, motion = self.drawer(), jax.device_put(self.scene.driving[:batch])
        return Form(
            lambda: jax.block_until_ready(draw(motion)),
            lambda: {"frames": np.asarray(draw(motion))},
        )

    def live(self, batch: int) -> Form:
        return self.forms.end_to_end("live", 2, 1, self.drawer())

    def offline(self, batch: int) -> Form:
        many = 25 if self.forms.device == "gpu" else 5
        return self.forms.end_to_end("window", 50, many, self.drawer())

    def poses(self, count: int) -> heads.Pose:
        s = self.scene
        return jax.vmap(lambda m: heads.drive(s.own, s.placement, m))(s.driving[:count])

    def warp(self, batch: int) -> Form:
        rng = np.random.default_rng(9)
        volume = rng.standard_normal((batch, *self.scene.face.volume), np.float32)
        offset = rng.normal(0, 0.05, (*volume.shape[:-1], 3)).astype(np.float32)

        run = _timed(renderer.from_canonical, volume, self.poses(batch), offset)
        return Form(run, lambda: {"volume": np.asarray(run())})

    def flow(self, batch: int) -> Form:
        run = _timed(self.model.warp_pose, self.model.head, self.encoded(), self.poses(batch))
        return Form(run, lambda: {"warped": np.asarray(run()[0])})

    def train_face(self, batch: int) -> Form:
        scene, model = self.scene, self.model
        data = scene.face_batch(batch)
        absolute = jax.vmap(heads.absolute_pose)
        corner = jnp.full((2,), scene.corner, jnp.int32)

        def loss(params, b):
            out: Any = model.nets.apply(
                {"params": params}, b["source"], b["opening"],
                absolute(b["source_motion"], b["placement"]),
                b["warped"], Maps(*jnp.moveaxis(b["maps"], -1, 0)),
                absolute(b["target_motion"], b["placement"]), corner,
            )  # fmt: skip
            value = weighted_l1(out["image"], b["target"], b["weight"]).mean()
            painted = jnp.abs(out["painted"] - b["target"]) * b["mouth"]
            return value + 3.0 * painted.mean(), {}

        return self.forms.training(scene.params["face"], scene.face_optim, loss, data)


class _Full:
    def __init__(self, forms: XlaForms, scene: FullScene):
        self.forms, self.scene = forms, scene
        self.cfg = self.precise(scene.face)
        self.model = VolumetricAutoencoder(self.cfg)

    def precise(self, cfg: Any) -> Any:
        return dataclasses.replace(cfg, precision=BFLOAT16) if self.forms.bfloat16 else cfg

    def given(self) -> VolumetricAppearance:
        parts = {k: v[0].astype(self.cfg.precision.compute_dtype) for k, v in
                 self.scene.appearance().items()}  # fmt: skip
        return jax.device_put(VolumetricAppearance(**parts))

    def appearance(self, batch: int) -> Form:
        s = self.scene
        params = s.face_params(s.face)
        pose, z_dyn = s.driving[:1, :7], s.driving[:1, 7:]
        run = _timed(self.model.encode, params, s.image[None], s.mask[None], pose, z_dyn)
        return Form(run, lambda: {k: np.asarray(v, np.float32) for k, v in run()._asdict().items()})

    def drawer(self) -> Callable[[np.ndarray], jax.Array]:
        params, given = jax.device_put(self.scene.face_params(self.scene.face)), self.given()
        model = self.model

        def render(params: Any, given: Any, motion: Any) -> Any:
            many = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(motion), *a.shape)), given)
            return to_uint8(model.decode(params, many, motion[:, :7], motion[:, 7:]))

        compiled = jax.jit(render)
        return lambda motion: compiled(params, given, motion)

    def render(self, batch: int) -> Form:
        draw, motion = self.drawer(), jax.device_put(self.scene.driving[:batch])
        return Form(
            lambda: jax.block_until_ready(draw(motion)),
            lambda: {"frames": np.asarray(draw(motion))},
        )

    def live(self, batch: int) -> Form:
        return self.forms.end_to_end("live", 2, 1, self.drawer())

    def offline(self, batch: int) -> Form:
        return self.forms.end_to_end("window", 50, 5, self.drawer())

    def warp(self, batch: int) -> Form:
        rng = np.random.default_rng(9)
        volume = rng.standard_normal((batch, *self.cfg.volume), np.float32)
        offset = rng.normal(0, 0.05, (*volume.shape[:-1], 3)).astype(np.float32)
        volume = jnp.asarray(volume, self.cfg.precision.compute_dtype)

        def warp(volume, pose, offset):
            matrix = jax.vmap(canonical_from_view)(pose)
            return volume_decoder.from_canonical(volume, matrix, offset)

        run = _timed(warp, volume, self.scene.driving[:batch, :7], offset)
        return Form(run, lambda: {"volume": np.asarray(run(), np.float32)})

    def train_face(self, batch: int) -> Form:
        scene = self.scene
        plain = scene.training_face(self.forms.device)
        cfg = self.precise(dataclasses.replace(plain, dropout=0.0))
        model = VolumetricAutoencoder(cfg)

        def loss(params, b):
            z_dyn = model.dynamics(
                params, jnp.concatenate([b["source_face"], b["driver_face"]])
            )  # fmt: skip
            source, driver = jnp.split(z_dyn, 2)
            appearance = model.encode(
                params, b["source"], b["source_mask"], b["source_pose"], source
            )  # fmt: skip
            picture = model.decode(params, appearance, b["driver_pose"], driver)
            return weighted_l1(picture, b["driver"], b["driver_mask"]).mean(), {}

        data = scene.face_batch(cfg, batch)
        return self.forms.training(scene.face_params(plain), scene.face_optim, loss, data)
