"""Arithmetic and memory traffic of a function, counted by hand from its trace.

An estimate that owes nothing to a compiler's own analysis, against which that can be held (the
units are XLA's: a multiply-add is two operations, any other arithmetic one per number). Traffic is
that of a compiler which fuses perfectly: products, convolutions, reductions, scatters, sorts and
barriers write their results to memory, everything between them is computed on the way from one to
the next; a value that several of them need is written once and read by each. Loops count as often
as they run (a while loop, whose length the trace does not know, once); of a conditional's branches
the dearest, as in XLA's count.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.interpreters import partial_eval

from vasa_jax.runtime.operations import inner_jaxprs, products_per_result

PRODUCTS = ("dot_general", "conv_general_dilated")
# Written to memory, from operands that lie in memory.
STORES = ("sort", "cumsum", "cumlogsumexp", "cummax", "scatter", "scatter-add", "scatter_max",
          "scatter-max", "scatter_add", "scatter-min", "scatter_min", "optimization_barrier",
          "fft", "custom_linear_solve", "while")  # fmt: skip
# Only move numbers, or are not arithmetic in XLA's count.
MOVES = ("reshape", "broadcast_in_dim", "slice", "dynamic_slice", "dynamic_update_slice",
         "concatenate", "transpose", "squeeze", "expand_dims", "pad", "gather", "iota", "copy",
         "rev", "bitcast_convert_type", "stop_gradient", "split", "random_bits", "random_wrap",
         "random_unwrap", "device_put", "copy_p", "random_fold_in", "random_seed")  # fmt: skip
TRANSCENDENTAL = ("exp", "exp2", "log", "log1p", "expm1", "tanh", "sin", "cos", "tan", "atan2",
                  "asin", "acos", "pow", "sqrt", "rsqrt", "cbrt", "erf", "erf_inv", "logistic",
                  "cumprod")  # fmt: skip
SAME = ("reshape", "squeeze", "expand_dims", "transpose", "copy", "stop_gradient")  # other views
PARTS_OF = ("slice", "dynamic_slice", "gather")  # read of their operand what they give


@dataclasses.dataclass
class Count:
    """Of one call."""

    flops: float = 0.0
    bytes: float = 0.0


class _Value:
    """An array of the trace: what has to be read to have it, and whether it lies in memory."""

    _names = itertools.count()

    def __init__(self, size: int, reads: frozenset[tuple[int, int]] | None = None):
        self.bytes = size
        self.stored = reads is None
        self.reads = frozenset({(next(self._names), size)}) if reads is None else reads


def count_by_hand(function: Callable[..., Any], *arguments: Any) -> Count:
    """Operations and bytes of one call; arguments may be ``ShapeDtypeStruct``s."""
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    # What nobody asks for is not computed.
    jaxpr, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars), instantiate=True)
    count = Count()
    given = [_Value(_bytes(v)) for v in jaxpr.invars]
    for value in _walk(jaxpr, given, 1, count):
        _store(value, 1, count)
    return count


def _walk(jaxpr: Any, given: Sequence[_Value], times: int, count: Count) -> list[_Value]:
    values: dict[Any, _Value] = dict(zip(jaxpr.invars, given, strict=True))
    values |= {v: _Value(_bytes(v)) for v in jaxpr.constvars}

    def of(v: Any) -> _Value:
        return values[v] if not hasattr(v, "val") else _Value(0, frozenset())  # literals are free

    for eqn in jaxpr.eqns:
        operands = [of(v) for v in eqn.invars]
        outs = _equation(eqn, operands, times, count)
        values |= zip(eqn.outvars, outs, strict=True)
    return [of(v) for v in jaxpr.outvars]


def _equation(eqn: Any, operands: list[_Value], times: int, count: Count) -> list[_Value]:
    name = eqn.primitive.name
    inner = list(inner_jaxprs(eqn))
    if inner and name not in STORES and not name.startswith(("reduce", "arg", "scatter")):
        if name == "scan":
            return _loop(eqn, inner[0], operands, times, count)
        body = inner[0]
        return _walk(body, operands[len(operands) - len(body.invars) :], times, count)
    sizes = [_bytes(v) for v in eqn.outvars]
    numbers = sum(math.prod(v.aval.shape) for v in eqn.outvars)
    if name in PRODUCTS:
        count.flops += times * 2.0 * numbers * products_per_result(eqn)
        return _stored(operands, sizes, times, count)
    if name in STORES or name.startswith("scatter"):
        if name.startswith("scatter"):
            count.flops += times * math.prod(eqn.invars[2].aval.shape)
        return _stored(operands, sizes, times, count)
    if name.startswith(("reduce", "arg")):  # fused with what they reduce
        count.flops += times * sum(math.prod(v.aval.shape) for v in eqn.invars)
        reads = frozenset().union(*(v.reads for v in operands))
        count.bytes += times * (sum(size for _, size in reads) + sum(sizes))
        return [_Value(size) for size in sizes]
    if name not in MOVES and name not in TRANSCENDENTAL:
        count.flops += times * numbers
    if name in SAME and operands[0].bytes == sizes[0]:
        return operands[:1]
    if name in PARTS_OF:
        if name == "gather":
            _store(operands[0], times, count)
        part = [frozenset((n, min(size, sizes[0])) for n, size in operands[0].reads)]
        reads = frozenset().union(*part, *(v.reads for v in operands[1:]))
    else:
        reads = frozenset().union(*(v.reads for v in operands))
    return [_Value(size, reads) for size in sizes]


def _loop(eqn: Any, body: Any, operands: list[_Value], times: int, count: Count) -> list[_Value]:
    """A scan: its carry and slices of its inputs lie in memory in every round."""
    for value in operands:
        _store(value, times, count)
    given = [_Value(_bytes(v)) for v in body.invars]
    rounds = times * eqn.params["length"]
    for value in _walk(body, given, rounds, count):
        _store(value, rounds, count)
    return [_Value(_bytes(v)) for v in eqn.outvars]


def _stored(operands: list[_Value], sizes: list[int], times: int, count: Count) -> list[_Value]:
    for value in operands:
        _store(value, times, count)
    count.bytes += times * (sum(v.bytes for v in operands) + sum(sizes))
    return [_Value(size) for size in sizes]


def _store(value: _Value, times: int, count: Count) -> None:
    """Writes a value that so far was only computed on the way."""
    if value.stored or not value.bytes:
        return
    count.bytes += times * (sum(size for _, size in value.reads) + value.bytes)
    value.stored, value.reads = True, _Value(value.bytes).reads


def _bytes(v: Any) -> int:
    aval = v.aval
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize
