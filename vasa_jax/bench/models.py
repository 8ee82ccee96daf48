"""What ``inspect`` and ``bench`` count of each kind of model: its parameters and its functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A function to be compiled for the shapes of ``arguments`` (``jax.ShapeDtypeStruct``)."""

    name: str
    shapes: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    training: bool = False  # left out of the sums per module


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What ``inspect`` needs to know of a kind of model."""

    parameters: Callable[[Any], Any]  # model config -> tree of shapes
    calls: Callable[[Any, Any], list[Call]]  # training config, tree of shapes -> functions


def model_of(cfg: Any, name: str) -> Model:
    """The entry of ``MODELS`` for a training config. Raises UserError when there is none."""
    from vasa_jax.core.errors import UserError

    kind = type(getattr(cfg, "model", None)).__name__
    if kind not in MODELS:
        raise UserError(f"{name} has no model that can be inspected ({', '.join(MODELS)})")
    return MODELS[kind]


def _motion_parameters(model: Any) -> Any:
    import jax

    from vasa_jax.motion.model import init_params

    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def _motion_calls(cfg: Any, params: Any) -> list[Call]:
    """Encoding and denoising one window, and the loss and its gradient on one batch."""
    import jax
    import jax.numpy as jnp

    from vasa_jax.core.types import Controls
    from vasa_jax.motion.latents import MotionStats
    from vasa_jax.motion.model import MotionModel
    from vasa_jax.train.motion import window_loss

    model = cfg.model
    net, k, w, ahead = MotionModel(model), model.past, model.window, model.lookahead_frames
    dim = model.motion_space.dim

    def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    def controls(batch: int) -> Controls:
        return Controls(*(shape(*x.shape) for x in Controls.none(batch, w)))

    def encode(params: Any, features: Any, valid: Any) -> Any:
        return net.apply({"params": params}, features, valid, {}, method="encode")

    def denoise(params: Any, noisy: Any, t: Any, fixed: Any) -> Any:
        return net.apply({"params": params}, noisy, t, **fixed, keep={}, method="denoise")

    features = shape(1, k + w + ahead, model.features.dim)
    heard = shape(1, k + w + ahead, dtype=jnp.bool_)
    fixed = {
        "audio_BAD": jax.eval_shape(encode, params, features, heard),
        "past_BKM": shape(1, k, dim),
        "past_valid_BK": shape(1, k, dtype=jnp.bool_),
        "motion_valid_BT": shape(1, w, dtype=jnp.bool_),
        "controls": controls(1),
    }
    b = cfg.data.batch
    batch = {
        "features": shape(b, k + w + ahead, model.features.dim),
        "audio_valid": shape(b, k + w + ahead, dtype=jnp.bool_),
        "motion": shape(b, k + w, dim),
        "motion_valid": shape(b, k + w, dtype=jnp.bool_),
        "viseme": shape(b, k + w, dtype=jnp.int32),
        "trust": shape(b, dim),
        "controls": controls(b),
    }

    def gradient(params: Any, batch: Any, seed: Any) -> Any:
        def loss(params: Any) -> Any:
            return window_loss(
                cfg, MotionStats.unit(model.motion_space), params, batch, jax.random.key(seed)
            )

        return jax.grad(loss, has_aux=True)(params)

    one = f"1 stream, {k} + {w} frames"
    return [
        Call(name="encode", shapes=one, function=encode, arguments=(params, features, heard)),
        Call(
            name="denoise",
            shapes=one,
            function=denoise,
            arguments=(params, shape(1, w, dim), shape(1), fixed),
        ),
        Call(
            name="gradient",
            shapes=f"batch of {b}",
            function=gradient,
            arguments=(params, batch, shape(dtype=jnp.uint32)),
            training=True,
        ),
    ]


def _face_parameters(model: Any) -> Any:
    import jax

    return jax.eval_shape(_face(model).init, jax.random.key(0))


def _face_calls(cfg: Any, params: Any) -> list[Call]:
    """The portrait's encoding, the motion of a driving picture where a net sees it, one frame."""
    import jax
    import jax.numpy as jnp

    from vasa_jax.core.arkit import MOTION_DIM
    from vasa_jax.face.head.fit import FaceFit

    face = _face(cfg.model)
    n = face.size

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    def fit(*lead: int) -> FaceFit:
        modes, vertices, _ = face.head.identity.shape
        return FaceFit(
            shape(*lead, modes), shape(*lead, MOTION_DIM), shape(*lead, 3), shape(*lead),
            shape(*lead, vertices, 3),
        )  # fmt: skip

    def render(params: Any, head: Any, appearance: Any, motion: Any) -> Any:
        return face.render(params, head, appearance, motion).image

    given = params, jax.eval_shape(lambda: face.head)
    portrait = (*given, shape(n, n, 3), fit())
    appearance = jax.eval_shape(face.encode_appearance, *portrait)
    driver = (*given, shape(1, n, n, 3), fit(1), fit())
    size = f"{n} x {n} px"
    calls = [
        Call(
            name="encode_appearance", shapes=size, function=face.encode_appearance,
            arguments=portrait,
        ),
        Call(
            name="encode_motion", shapes=f"1 frame, {size}", function=face.encode_motion,
            arguments=driver,
        ),
        Call(
            name="render", shapes=f"1 frame, {size}", function=render,
            arguments=(*given, appearance, shape(1, face.space.dim)),
        ),
    ]  # fmt: skip
    reads = face.space.cfg.kind == "latent"
    return [call for call in calls if reads or call.name != "encode_motion"]


def _face(model: Any) -> Any:
    from vasa_jax.data.faces import example_head
    from vasa_jax.face.faces import face_of

    return face_of(model, example_head())


MODELS: dict[str, Model] = {
    "MotionModelConfig": Model(parameters=_motion_parameters, calls=_motion_calls),
    "FaceConfig": Model(parameters=_face_parameters, calls=_face_calls),
    "VolumetricConfig": Model(parameters=_face_parameters, calls=_face_calls),
}
