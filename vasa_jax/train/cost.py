"""What a step costs: floating-point operations, and memory on one device.

XLA's own cost analysis counts the body of a loop once, however often it runs, and so misses all but
one microbatch and all but one step of a sampler. Here the multiplications are counted in the
traced program instead, loops as often as they run: matrix products and convolutions, forward and
backward, of the whole batch on all devices. The rest (norms, softmax, optimiser) is left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from vasa_jax.core.mesh import shard_bytes
from vasa_jax.runtime.operations import count_flops

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """One compiled step. Bytes are those of one device."""

    flops: float  # of the whole step on all devices; loops of unknown length count once
    params: int
    opt_state: int
    ema: int
    batch: int
    temporary: int  # activations, gradients and scratch, as XLA planned them; 0: not told
    compile_s: float

    @property
    def total(self) -> int:
        """What one device must hold at once."""
        return self.params + self.opt_state + self.ema + self.batch + self.temporary

    def table(self) -> str:
        """For people: a row per kind of memory, then the arithmetic."""
        rows = {
            "parameters": self.params,
            "optimiser": self.opt_state,
            "average": self.ema,
            "batch, constants": self.batch,
            "activations": self.temporary,
            "in all": self.total,
        }
        lines = [f"{'memory of one device':<20}  {'MB':>10}"]
        lines += [f"{name:<20}  {size / 1e6:>10.2f}" for name, size in rows.items()]
        lines.append(f"{'one step':<20}  {self.flops / 1e9:>10.4g} GFLOP")
        lines.append(f"{'compiled in':<20}  {self.compile_s:>10.1f} s")
        return "\n".join(lines)


def step_cost(jaxpr: Any, compiled: Any, state: Any, shardings: Any, compile_s: float) -> StepCost:
    """Cost of a step from its trace, its executable, and where its state (arrays, shapes) lies."""
    params, opt_state, ema = (
        shard_bytes(getattr(state, name), getattr(shardings, name))
        for name in ("params", "opt_state", "ema")
    )
    memory = compiled.memory_analysis()
    arguments = getattr(memory, "argument_size_in_bytes", 0)
    return StepCost(
        flops=count_flops(jaxpr), params=params, opt_state=opt_state, ema=ema,
        batch=max(arguments - params - opt_state - ema, 0),
        temporary=getattr(memory, "temp_size_in_bytes", 0), compile_s=compile_s,
    )  # fmt: skip
