"""The parts of a release, or of a configuration, held against the floor of ``bench/ceilings.py``.

Operations are counted twice: by hand from the trace (``bench/traffic.py``) and by the compiler's
cost analysis of what it compiled for this machine. So are the bytes of that program (by hand from
its instructions, ``bench/program_traffic.py``), beside those of one that fuses perfectly, which
make the floor. A loop that the compiler would count once is compiled without the loop: a denoising
step is a part of its own, called as often as the sampler has steps.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from vasa_jax.bench.ceilings import (
    RTX_4090,
    Ceilings,
    Part,
    frames_per_second,
    measured_ceilings,
)

Say = Callable[[str], None]

REPEATS = 7


def release_floor(engine: Any, say: Say) -> dict[str, Any]:
    """Parts of a loaded release: live motion, the portrait, one frame; measured here."""
    from vasa_jax.bench.models import model_of
    from vasa_jax.generate.live.engine import LiveConfig, LiveEngine

    live = LiveEngine(engine, LiveConfig())
    rolling, motion = live.rolling, engine.motion_config
    live.close()
    window = rolling.frames(motion)
    face = SimpleNamespace(model=engine.face.cfg)
    calls = model_of(face, engine.release.name).calls(face, engine.face_params)
    student = SimpleNamespace(
        model=dataclasses.replace(motion, window=window), data=SimpleNamespace(batch=1)
    )
    calls += model_of(student, engine.release.name).calls(student, engine.quick_params)
    often = {
        "render": 1.0, "encode": 1.0 / rolling.hop, "denoise": rolling.steps / rolling.hop,
    }  # fmt: skip
    here = measured_ceilings()
    parts = [
        _part(call, often.get(call.name, 0.0), "float32", say, measure=True)
        for call in calls
        if not call.training
    ]
    note = (
        f"live: hop of {rolling.hop} frames, window of {window}, {rolling.steps} steps of "
        f"{1 + len(rolling.guided)} branch(es)"
    )
    return {"name": engine.release.name, "note": note} | table(parts, here)


def config_floor(name: str, say: Say) -> dict[str, Any]:
    """Parts of a training configuration, by hand only: nothing is allocated, compiled or run."""
    from vasa_jax.bench.models import model_of
    from vasa_jax.core.config import load_config
    from vasa_jax.runtime.target import traced_for

    cfg = load_config(name)
    model = model_of(cfg, name)
    params = model.parameters(cfg.model)
    precision = getattr(cfg.model, "precision", None)
    dtype = getattr(precision, "compute", "float32")
    with traced_for("gpu"):  # what it predicts is a GPU
        parts = [
            _part(call, float(call.name == "render"), dtype, say, measure=False)
            for call in model.calls(cfg, params)
            if not call.training
        ]
    return {"name": name, "note": "counted by hand, not run"} | table(parts, None)


def table(parts: list[Part], here: Ceilings | None) -> dict[str, Any]:
    """Everything that the card says of some parts."""
    rows = []
    for part in parts:
        there = RTX_4090[part.dtype]
        rows.append(
            {
                "part": part.name,
                "per_frame": part.per_frame,
                "gflop": part.hand_flops / 1e9,
                "gflop_compiler": part.compiler_flops and part.compiler_flops / 1e9,
                "flops_ratio": part.flops_ratio,
                "mb": part.hand_bytes / 1e6,
                "mb_program": part.program_bytes and part.program_bytes / 1e6,
                "mb_compiler": part.compiler_bytes and part.compiler_bytes / 1e6,
                "bytes_ratio": part.bytes_ratio,
                "measured_ms": part.measured_s and part.measured_s * 1e3,
                "computing_ms": here and part.computing_s(here) * 1e3,
                "moving_ms": here and part.moving_s(here) * 1e3,
                "achieved": here and part.achieved(here),
                "rtx_4090_ms": part.floor_s(there) * 1e3,
                "rtx_4090_bound": part.bound(there),
            }
        )
    framewise = [p for p in parts if p.per_frame]
    out: dict[str, Any] = {
        "parts": rows,
        "rtx_4090": {
            "fps": frames_per_second(framewise, RTX_4090) if framewise else None,
            "dtype": sorted({p.dtype for p in framewise}),
            "assumed": {
                name: {"tflops": c.flops / 1e12, "gb_s": c.bytes / 1e9, "source": c.source}
                for name, c in RTX_4090.items()
            },
        },
    }
    if here is not None:
        out["ceilings"] = {
            "gflops": here.flops / 1e9, "gb_s": here.bytes / 1e9, "source": here.source,
        }  # fmt: skip
        out["fps_floor"] = frames_per_second(framewise, {p.dtype: here for p in framewise})
    return out


def describe(floor: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = [f"**Floor of {floor['name']}** ({floor['note']}).", ""]
    lines += [
        "| part | calls per frame | GFLOP by hand / compiler | MB fused perfectly "
        "| MB as compiled, by hand / compiler | measured ms "
        "| least ms here, computing / moving | computing / measured | least ms on an RTX 4090 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in floor["parts"]:
        achieved = "" if row["achieved"] is None else f"{100 * row['achieved']:.0f} %"
        lines.append(
            f"| {row['part']} | {row['per_frame']:g} "
            f"| {_number(row['gflop'])} / {_number(row['gflop_compiler'])} "
            f"| {_number(row['mb'])} "
            f"| {_number(row['mb_program'])} / {_number(row['mb_compiler'])} "
            f"| {_number(row['measured_ms'])} "
            f"| {_number(row['computing_ms'])} / {_number(row['moving_ms'])} | {achieved} "
            f"| {row['rtx_4090_ms']:.3g} ({row['rtx_4090_bound']}) |"
        )
    lines.append("")
    if "ceilings" in floor:
        c = floor["ceilings"]
        lines.append(
            f"Ceilings here: {c['gflops']:.0f} GFLOP/s, {c['gb_s']:.1f} GB/s ({c['source']}); "
            f"with all traffic to memory and every part at its least time "
            f"{floor['fps_floor']:.0f} frames a second; what stays in caches does not count."
        )
    there = floor["rtx_4090"]
    if there["fps"]:
        assumed = RTX_4090[there["dtype"][0]]
        lines.append(
            f"RTX 4090, not measured: at most {there['fps']:.0f} frames a second, half of that at "
            f"50 % of the floor. Assumed: {assumed.flops / 1e12:g} TFLOP/s "
            f"({', '.join(there['dtype'])}), {assumed.bytes / 1e9:g} GB/s ({assumed.source}); "
            "perfect fusion, no time between kernels, no encoding."
        )
    return [*lines, ""]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _part(call: Any, per_frame: float, dtype: str, say: Say, *, measure: bool) -> Part:
    import jax
    import jax.numpy as jnp

    from vasa_jax.bench.program_traffic import bytes_of_program
    from vasa_jax.bench.traffic import count_by_hand

    say(f"floor: {call.name}")
    hand = count_by_hand(call.function, *call.arguments)
    if not measure:
        return Part(
            name=call.name, per_frame=per_frame, dtype=dtype, hand_flops=hand.flops,
            hand_bytes=hand.bytes,
        )  # fmt: skip
    compiled = jax.jit(call.function).lower(*call.arguments).compile()
    cost: Any = compiled.cost_analysis()
    cost = (cost[0] if isinstance(cost, list) else cost) or {}
    given = jax.tree.map(
        lambda x: x if isinstance(x, jax.Array) else jnp.zeros(x.shape, x.dtype), call.arguments
    )
    times = []
    jax.block_until_ready(compiled(*given))
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        times.append(time.perf_counter() - began)
    return Part(
        name=call.name, per_frame=per_frame, dtype=dtype, hand_flops=hand.flops,
        hand_bytes=hand.bytes, compiler_flops=cost.get("flops"),
        program_bytes=bytes_of_program(compiled.as_text() or ""),
        compiler_bytes=cost.get("bytes accessed"), measured_s=statistics.median(times),
    )  # fmt: skip
