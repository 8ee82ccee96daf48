"""What a function computes, counted per module from its trace, without compiling or running it.

FLOPs are those of convolutions and matrix products, two per multiply-add; everything else is small
beside them. Result bytes are what convolutions, products and gathers write: about what training
keeps of a module without rematerialisation. Loops count as often as they run (a while loop, whose
length the trace does not know, once), but what a loop only adds up counts once as a result; of a
conditional's branches the dearest.

Modules are named by the scopes that Flax opens around them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

SEPARATOR = "/"
WRITES = ("conv_general_dilated", "dot_general", "gather")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Of one module: FLOPs of one call, and bytes of the results that are counted."""

    flops: int = 0
    result_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            flops=self.flops + other.flops, result_bytes=self.result_bytes + other.result_bytes
        )


def count_work(function: Callable[..., Any], *arguments: Any) -> dict[str, Work]:
    """Work by module path ("" outside of any) of one call; arguments may be ShapeDtypeStructs."""
    table: dict[str, Work] = {}
    for path, work in _walk(jax.make_jaxpr(function)(*arguments).jaxpr, ""):
        table[path] = table.get(path, Work()) + work
    return table


def count_flops(jaxpr: Any) -> int:
    """FLOPs of one call of a traced program, a jaxpr or a closed one."""
    return sum(work.flops for _, work in _walk(getattr(jaxpr, "jaxpr", jaxpr), ""))


def gather_branches(table: dict[str, Work], depth: int) -> dict[str, Work]:
    """The table with paths cut after ``depth`` parts."""
    short: dict[str, Work] = {}
    for path, work in table.items():
        name = SEPARATOR.join(path.split(SEPARATOR)[:depth])
        short[name] = short.get(name, Work()) + work
    return short


def _walk(jaxpr: Any, outer: str, times: int = 1, kept: int = 1) -> Iterator[tuple[str, Work]]:
    """Work of what runs ``times`` times and leaves ``kept`` results."""
    for eqn in jaxpr.eqns:
        stack = str(eqn.source_info.name_stack)
        path = SEPARATOR.join(part for part in (outer, stack) if part)
        inner = list(inner_jaxprs(eqn))
        if inner:
            rounds, stacks = 1, False
            if eqn.primitive.name == "scan":
                rounds = eqn.params["length"]
                stacks = len(eqn.outvars) > eqn.params["num_carry"]
            for body in inner:
                yield from _walk(body, path, times * rounds, kept * rounds if stacks else kept)
        elif eqn.primitive.name in WRITES:
            out = eqn.outvars[0].aval
            size = math.prod(out.shape)
            yield (
                _modules(path),
                Work(
                    flops=round(times * 2 * size * products_per_result(eqn)),
                    result_bytes=kept * size * out.dtype.itemsize,
                ),
            )


def products_per_result(eqn: Any) -> float:
    """Multiply-adds per number of the result; those with the zeros of a dilated input left out."""
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(kernel) / (outputs * math.prod(eqn.params["lhs_dilation"]))
    return 0


def inner_jaxprs(eqn: Any) -> Iterator[Any]:
    """Jaxprs that an equation calls; of the branches of a conditional, the dearest."""
    if eqn.primitive.name == "custom_jvp_call":
        yield eqn.params["call_jaxpr"].jaxpr
        return
    if eqn.primitive.name == "cond":
        yield max((branch.jaxpr for branch in eqn.params["branches"]), key=_price)
        return
    for value in eqn.params.values():
        parts = value[:1] if isinstance(value, tuple | list) else (value,)
        for part in parts:
            if hasattr(part, "eqns"):
                yield part
            elif hasattr(part, "jaxpr"):
                yield part.jaxpr


def _price(jaxpr: Any) -> float:
    """Rough number of operations, to tell the dearer of two."""
    price = 0.0
    for eqn in jaxpr.eqns:
        inner = sum(map(_price, inner_jaxprs(eqn)))
        own = sum(math.prod(v.aval.shape) for v in eqn.outvars)
        own *= max(1, 2 * products_per_result(eqn))
        price += inner * eqn.params.get("length", 1) or own
    return price


def _modules(stack: str) -> str:
    """Names of submodules of a name stack: without the root module, methods and transformations."""
    parts = [part for part in stack.split(SEPARATOR) if part and "." not in part]
    return SEPARATOR.join(part for part in parts if "(" not in part and not part[0].isupper())
