"""Bytes that a compiled program reads and writes, counted from its instructions.

``traffic.py`` counts what a perfect compiler would move; this counts what the program that XLA made
does move: every instruction outside a fusion reads its operands and writes its result, a fusion as
one. Of an operand that is only cut or gathered from, the parts taken count; a loop counts as often
as it says that it runs, of a conditional the dearest branch. Written without XLA's own analysis,
against which it is held, so that neither need be believed alone. They differ where XLA counts a
loop once, and the whole of a table that a fusion gathers from.
"""

from __future__ import annotations

import dataclasses
import math
import re

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
          "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}  # fmt: skip
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
         "partition-id", "replica-id")  # fmt: skip
_CUTS = ("slice", "dynamic-slice", "gather")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{\s*$")


@dataclasses.dataclass(frozen=True, slots=True)
class _Instruction:
    kind: str
    bytes: int  # of its result
    operands: tuple[str, ...]
    given: str  # what stands between its parentheses
    attributes: str
    root: bool

    def named(self, attribute: str) -> str:
        """The computation that an attribute names. Raises ValueError where there is none."""
        found = re.search(rf"\b{attribute}=%([\w.\-]+)", self.attributes)
        if found is None:
            raise ValueError(f"a {self.kind} without {attribute}")
        return found[1]


_Body = dict[str, _Instruction]


def bytes_of_program(text: str) -> int:
    """Bytes of one call of an optimised HLO module (``jax.stages.Compiled.as_text``)."""
    bodies, entry = _read(text)
    return _of_body(bodies, entry)


def _read(text: str) -> tuple[dict[str, _Body], str]:
    bodies: dict[str, _Body] = {}
    body: _Body = {}
    entry = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            body = bodies[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            given, attributes = _split(found[5])
            body[found[2]] = _Instruction(
                found[4], _size(found[3]), tuple(re.findall(r"%([\w.\-]+)", given)), given,
                attributes, bool(found[1]),
            )  # fmt: skip
    if not entry:
        raise ValueError("this is no HLO module: it has no ENTRY")
    return bodies, entry


def _split(rest: str) -> tuple[str, str]:
    """What lies within the parenthesis that is open, and what comes after it."""
    depth = 1
    for at, character in enumerate(rest):
        depth += (character in "({") - (character in ")}")
        if depth == 0:
            return rest[:at], rest[at + 1 :]
    return rest, ""


def _size(shape: str) -> int:
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(_BYTES.get(d, 0) * math.prod(int(n) for n in s.split(",") if n) for d, s in arrays)


def _of_body(bodies: dict[str, _Body], name: str) -> int:
    return sum(_of_instruction(bodies, bodies[name], one) for one in bodies[name].values())


def _of_instruction(bodies: dict[str, _Body], body: _Body, one: _Instruction) -> int:
    def of(name: str) -> int:
        return _of_body(bodies, name)

    if one.kind in _FREE:
        return 0
    if one.kind == "while":
        runs = re.search(r"known_trip_count\D+(\d+)", one.attributes)
        both = of(one.named("body")) + of(one.named("condition"))
        return both * (int(runs[1]) if runs else 1)
    if one.kind == "conditional":
        listed = re.search(r"branch_computations=\{([^}]*)\}", one.attributes)
        if listed is None:
            return max(of(one.named("true_computation")), of(one.named("false_computation")))
        return max(of(name) for name in re.findall(r"%([\w.\-]+)", listed[1]))
    if one.kind == "call":
        return of(one.named("to_apply"))
    if one.kind == "fusion":
        return _of_fusion(body, one, bodies[one.named("calls")])
    if one.kind == "gather":
        return 2 * one.bytes + body[one.operands[1]].bytes
    if one.kind in _CUTS:
        return 2 * one.bytes
    if one.kind == "dynamic-update-slice":
        return 2 * body[one.operands[1]].bytes
    return one.bytes + sum(body[name].bytes for name in one.operands if name in body)


def _of_fusion(body: _Body, one: _Instruction, inside: _Body) -> int:
    parameters = {int(i.given): name for name, i in inside.items() if i.kind == "parameter"}
    total = 0
    for number, operand in enumerate(one.operands):
        whole, name = body[operand].bytes, parameters[number]
        users = [i for i in inside.values() if name in i.operands]
        first = [i for i in users if i.operands[0] == name]
        if users and len(first) == len(users):
            if all(i.kind in _CUTS for i in users):
                whole = min(whole, sum(i.bytes for i in users))
            elif all(i.kind == "dynamic-update-slice" for i in users):
                whole = 0  # written in place, counted with the result
        total += whole
    root = next(i for i in inside.values() if i.root)
    if root.kind == "dynamic-update-slice":
        return total + inside[root.operands[1]].bytes
    return total + one.bytes
