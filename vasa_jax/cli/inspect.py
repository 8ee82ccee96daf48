"""``vasa-jax inspect``: what a configuration builds, without building it.

Parameters come from ``jax.eval_shape``, so the largest model is counted without memory for it.
A model is described by one entry of ``bench/models.py``: its parameters' shapes, and the compiled
functions whose cost ``--cost`` asks the compiler for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vasa_jax.bench.models import Call, model_of
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
    flops: int  # of one call of each function of inference, see runtime/operations.py
    activation_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """One compiled call; None where the compiler does not say."""

    name: str
    shapes: str  # of what it was compiled for
    flops: float | None
    bytes_accessed: float | None  # by all operations, caches not counted
    temporary_bytes: int | None  # activations: the largest amount alive at once


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


def modules_of(params: Any, depth: int, calls: Sequence[Call] = ()) -> list[Module]:
    """Branches of the tree, in its order; single arrays of a branch are gathered under its name.

    Work of ``calls`` that no branch does (geometry, sampling) is a last row, OUTSIDE.
    """
    from vasa_jax.core.tree import SEPARATOR, count, flatten, num_bytes
    from vasa_jax.runtime.operations import Work, count_work, gather_branches

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
