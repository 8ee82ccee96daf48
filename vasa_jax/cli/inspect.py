"""``vasa-jax inspect``: what a configuration builds, without building it.

Parameters come from ``jax.eval_shape``, so the largest model is counted without memory for it.
A model is described by one entry of ``MODELS``: its parameters' shapes, and the compiled functions
whose cost ``--cost`` asks the compiler for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vasa_jax.cli.settings import add_settings, configured

DESCRIPTION = """\
Print the parameters of a configuration's model, per module and in all, with the FLOPs and the bytes
of activations of one call of each function that inference uses, counted from their traces: nothing
is allocated, compiled or run. FLOPs are those of convolutions and matrix products, two per
multiply-add; activations are the results of convolutions, products and gathers. With --cost also
FLOPs and bytes of each function as the compiler counts them (it compiles them for this machine).
"""

EXAMPLES = """\
examples:
  vasa-jax inspect configs/motion_base.py
  vasa-jax inspect configs/motion_base.py --depth 3 --cost
  vasa-jax inspect configs/face_512.py --json
"""

OUTSIDE = "(outside)"  # of any module with parameters
NOT_PUBLISHED = -1.0  # what a backend answers that doesn't count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """One branch of the parameter tree. Further measures per module are further fields."""

    name: str  # path, cut after --depth parts
    parameters: int
    bytes: int  # as stored in training
    flops: int  # of one call of each function of inference, see core/operations.py
    activation_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """One compiled call; None where the compiler does not say."""

    name: str
    shapes: str  # of what it was compiled for
    flops: float | None
    bytes_accessed: float | None  # by all operations, caches not counted
    temporary_bytes: int | None  # activations: the largest amount alive at once


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("config", metavar="FILE.py[:VARIANT]", help="a configuration; see configs/")
    add_settings(parser)
    parser.add_argument(
        "--depth", type=int, default=2, metavar="N", help="parts of a module's path (default 2)"
    )
    parser.add_argument(
        "--cost", action="store_true", help="compile the functions and count FLOPs and bytes"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.core.errors import UserError
    from vasa_jax.core.tree import count, num_bytes

    if args.depth < 1:
        raise UserError(f"--depth wants a positive number, got {args.depth}")
    cfg = configured(args)
    model = model_of(cfg, args.config)
    params = model.parameters(cfg.model)
    calls = model.calls(cfg, params)
    modules = modules_of(params, args.depth, [call for call in calls if not call.training])
    functions = [cost(call) for call in calls] if args.cost else []
    report = {
        "config": args.config,
        "model": type(cfg.model).__name__,
        "calls": [call.name for call in calls if not call.training],
        "parameters": count(params),
        "bytes": num_bytes(params),
        "flops": sum(m.flops for m in modules),
        "activation_bytes": sum(m.activation_bytes for m in modules),
        "modules": {m.name: _without_name(m) for m in modules},
        "functions": {f.name: _without_name(f) for f in functions},
    }
    print(json.dumps(report, indent=1) if args.json else table(report))
    return 0


def model_of(cfg: Any, name: str) -> Model:
    """The entry of ``MODELS`` for a training config. Raises UserError when there is none."""
    from vasa_jax.core.errors import UserError

    kind = type(getattr(cfg, "model", None)).__name__
    if kind not in MODELS:
        raise UserError(f"{name} has no model that can be inspected ({', '.join(MODELS)})")
    return MODELS[kind]


def modules_of(params: Any, depth: int, calls: Sequence[Call] = ()) -> list[Module]:
    """Branches of the tree, in its order; single arrays of a branch are gathered under its name.

    Work of ``calls`` that no branch does (geometry, sampling) is a last row, OUTSIDE.
    """
    from vasa_jax.core.operations import Work, count_work, gather_branches
    from vasa_jax.core.tree import SEPARATOR, count, flatten, num_bytes

    sums: dict[str, list[int]] = {}
    for name, leaf in flatten(params).items():
        *branches, _ = name.split(SEPARATOR)
        row = sums.setdefault(SEPARATOR.join(branches[:depth]) or "(top)", [0, 0])
        row[0] += count(leaf)
        row[1] += num_bytes(leaf)
    work: dict[str, Work] = {}
    for call in calls:
        for name, part in gather_branches(
            count_work(call.function, *call.arguments), depth
        ).items():
            name = name if name in sums else OUTSIDE
            work[name] = work.get(name, Work()) + part
    if OUTSIDE in work:
        sums[OUTSIDE] = [0, 0]
    nothing = Work()
    return [
        Module(
            name=n, parameters=p, bytes=b, flops=work.get(n, nothing).flops,
            activation_bytes=work.get(n, nothing).result_bytes,
        )
        for n, (p, b) in sums.items()
    ]  # fmt: skip


def cost(call: Call) -> Function:
    """What the compiler says about one call. Loops count their body once, whatever their length."""
    import jax

    compiled = jax.jit(call.function).lower(*call.arguments).compile()
    counted = compiled.cost_analysis()
    if isinstance(counted, list):  # some versions give one table per device
        counted = counted[0] if counted else None
    counted = counted or {}
    memory = compiled.memory_analysis()

    def number(key: str) -> float | None:
        value = counted.get(key, NOT_PUBLISHED)
        return None if value == NOT_PUBLISHED else float(value)

    return Function(
        name=call.name,
        shapes=call.shapes,
        flops=number("flops"),
        bytes_accessed=number("bytes accessed"),
        temporary_bytes=None if memory is None else int(memory.temp_size_in_bytes),
    )


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    total = report["parameters"]
    rows = list(report["modules"].items())
    width = max(len(name) for name in ("in all", *report["modules"], *report["functions"]))
    lines = [f"{report['config']}  {report['model']}", ""]
    head = f"{'parameters':>12}  {'share':>6}  {'MiB':>9}  {'GFLOP':>10}  {'MB made':>10}"
    lines += [f"{'module':<{width}}  {head}"]
    for name, row in [*rows, ("in all", report)]:
        share = 100.0 * row["parameters"] / max(total, 1)
        cells = [
            f"{name:<{width}}", f"{row['parameters']:>12,}", f"{share:>5.1f}%",
            f"{row['bytes'] / 2**20:>9.2f}", _in(row["flops"], 1e9, 10),
            _in(row["activation_bytes"], 1e6, 10),
        ]  # fmt: skip
        lines.append("  ".join(cells))
    lines.append(f"work: one call of each of {', '.join(report['calls'])}")
    if report["functions"]:
        head = f"{'GFLOP':>12}  {'MB moved':>9}  {'MB alive':>9}  shapes"
        lines += ["", f"{'one call of':<{width}}  {head}"]
    for name, row in report["functions"].items():
        cells = [
            _in(row["flops"], 1e9, 12), _in(row["bytes_accessed"], 1e6, 9),
            _in(row["temporary_bytes"], 1e6, 9), row["shapes"],
        ]  # fmt: skip
        lines.append("  ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)


def _in(value: float | None, unit: float, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value / unit:>{width},.2f}"


def _without_name(row: Module | Function) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(row).items() if k != "name"}


# --- the models ---------------------------------------------------------------------------------


def _motion_parameters(model: Any) -> Any:
    import jax

    from vasa_jax.generate.model import init_params

    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def _motion_calls(cfg: Any, params: Any) -> list[Call]:
    """Encoding and denoising one window, and the loss and its gradient on one batch."""
    import jax
    import jax.numpy as jnp

    from vasa_jax.core.types import MOTION_DIM, Controls
    from vasa_jax.generate.model import MotionModel
    from vasa_jax.motion.latents import MotionStats
    from vasa_jax.train.motion import window_loss

    model = cfg.model
    net, k, w, ahead = MotionModel(model), model.past, model.window, model.lookahead_frames

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
        "past_BKM": shape(1, k, MOTION_DIM),
        "past_valid_BK": shape(1, k, dtype=jnp.bool_),
        "motion_valid_BT": shape(1, w, dtype=jnp.bool_),
        "controls": controls(1),
    }
    b = cfg.data.batch
    batch = {
        "features": shape(b, k + w + ahead, model.features.dim),
        "audio_valid": shape(b, k + w + ahead, dtype=jnp.bool_),
        "motion": shape(b, k + w, MOTION_DIM),
        "motion_valid": shape(b, k + w, dtype=jnp.bool_),
        "viseme": shape(b, k + w, dtype=jnp.int32),
        "trust": shape(b, MOTION_DIM),
        "controls": controls(b),
    }

    def gradient(params: Any, batch: Any, seed: Any) -> Any:
        def loss(params: Any) -> Any:
            return window_loss(cfg, MotionStats.unit(), params, batch, jax.random.key(seed))

        return jax.grad(loss, has_aux=True)(params)

    one = f"1 stream, {k} + {w} frames"
    return [
        Call(name="encode", shapes=one, function=encode, arguments=(params, features, heard)),
        Call(
            name="denoise",
            shapes=one,
            function=denoise,
            arguments=(params, shape(1, w, MOTION_DIM), shape(1), fixed),
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

    from vasa_jax.data.faces import example_head
    from vasa_jax.face.autoencoder import FaceAutoencoder

    return jax.eval_shape(FaceAutoencoder(model, example_head()).init, jax.random.key(0))


def _face_calls(cfg: Any, params: Any) -> list[Call]:
    """The portrait's encoding and one rendered frame."""
    import jax
    import jax.numpy as jnp

    from vasa_jax.core.types import MOTION_DIM
    from vasa_jax.data.faces import example_head
    from vasa_jax.face.autoencoder import FaceAutoencoder

    auto = FaceAutoencoder(cfg.model, example_head())
    n = cfg.model.size

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    head = jax.eval_shape(lambda: auto.head)
    identity = shape(auto.head.identity.shape[0])
    portrait = (params, head, shape(n, n, 3), identity, shape(MOTION_DIM), shape(3))
    appearance = jax.eval_shape(auto.encode, *portrait)

    def render(params: Any, head: Any, appearance: Any, motion: Any) -> Any:
        return auto.render(params, appearance, motion, head=head)

    size = f"{n} x {n} px"
    return [
        Call(name="encode_appearance", shapes=size, function=auto.encode, arguments=portrait),
        Call(
            name="render",
            shapes=f"1 frame, {size}",
            function=render,
            arguments=(params, head, appearance, shape(1, MOTION_DIM)),
        ),
    ]


def _volumetric_parameters(model: Any) -> Any:
    import jax

    from vasa_jax.face.volumetric import VolumetricAutoencoder

    return jax.eval_shape(VolumetricAutoencoder(model).init, jax.random.key(0))


def _volumetric_calls(cfg: Any, params: Any) -> list[Call]:
    """The portrait's encoding, the motion of one driving picture, and one rendered frame."""
    import jax
    import jax.numpy as jnp

    from vasa_jax.face.rigid import POSE_DIM
    from vasa_jax.face.volumetric import VolumetricAutoencoder

    auto, n = VolumetricAutoencoder(cfg.model), cfg.model.size

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    portrait = (params, shape(n, n, 3), shape(POSE_DIM), shape(n, n, 1))
    driver = (params, shape(1, n, n, 3), shape(1, POSE_DIM))
    appearance = jax.eval_shape(auto.encode_appearance, *portrait)
    frame = (params, appearance, shape(1, cfg.model.motion_dim))
    size = f"{n} x {n} px"
    return [
        Call(
            name="encode_appearance", shapes=size, function=auto.encode_appearance,
            arguments=portrait,
        ),
        Call(
            name="encode_motion", shapes=f"1 frame, {size}", function=auto.encode_motion,
            arguments=driver,
        ),
        Call(name="render", shapes=f"1 frame, {size}", function=auto.render, arguments=frame),
    ]  # fmt: skip


MODELS: dict[str, Model] = {
    "MotionModelConfig": Model(parameters=_motion_parameters, calls=_motion_calls),
    "FaceConfig": Model(parameters=_face_parameters, calls=_face_calls),
    "VolumetricConfig": Model(parameters=_volumetric_parameters, calls=_volumetric_calls),
}
