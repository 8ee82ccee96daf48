"""The floor: how fast a part could be on a device, from its operations and its memory traffic.

    time >= max(operations / peak rate, bytes / bandwidth)

The roofline model (Williams et al. 2009, doi 10.1145/1498765.1498785): no time is lost between
operations, and moving overlaps with computing. ``CEILINGS`` of this machine are measured (a large
matrix product, a large copy); those of a device that is not here come from its maker.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

MATRIX = 2048  # side of the product: 17 GFLOP, 50 MB
COPY_MB = 256
REPEATS, AT_LEAST_S = 5, 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Peak rates of a device."""

    name: str
    flops: float  # per second
    bytes: float  # per second, read and written
    source: str


# NVIDIA, Ada GPU Architecture whitepaper, appendix A: FP32 without tensor cores; BF16 in tensor
# cores with FP32 accumulation, dense.
_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix A"
RTX_4090 = {
    "float32": Ceilings(name="RTX 4090, f32", flops=82.6e12, bytes=1008e9, source=_ADA),
    "bfloat16": Ceilings(name="RTX 4090, bf16", flops=165.2e12, bytes=1008e9, source=_ADA),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One compiled call: what it costs by the compiler's count and by hand."""

    name: str
    per_frame: float  # calls per frame of video; 0: once per portrait
    dtype: str  # of its products
    hand_flops: float
    hand_bytes: float  # with perfect fusion
    compiler_flops: float | None = None  # None: not compiled, or not told
    program_bytes: float | None = None  # of what was compiled, by hand from its instructions
    compiler_bytes: float | None = None  # the same by the compiler's cost analysis
    measured_s: float | None = None

    @property
    def flops_ratio(self) -> float | None:
        """By hand over the compiler's."""
        return None if not self.compiler_flops else self.hand_flops / self.compiler_flops

    @property
    def bytes_ratio(self) -> float | None:
        """By hand over the compiler's, both of the compiled program."""
        if not self.compiler_bytes or self.program_bytes is None:
            return None
        return self.program_bytes / self.compiler_bytes

    def computing_s(self, ceilings: Ceilings) -> float:
        """Time of the arithmetic alone."""
        return self.hand_flops / ceilings.flops

    def moving_s(self, ceilings: Ceilings) -> float:
        """Time of the traffic alone, all of it to and from the device's memory."""
        return self.hand_bytes / ceilings.bytes

    def floor_s(self, ceilings: Ceilings) -> float:
        """The least time of one call."""
        return max(self.computing_s(ceilings), self.moving_s(ceilings))

    def bound(self, ceilings: Ceilings) -> str:
        """What the floor is made of."""
        computing = self.computing_s(ceilings) >= self.moving_s(ceilings)
        return "computing" if computing else "memory"

    def achieved(self, ceilings: Ceilings) -> float | None:
        """Time of the arithmetic over measured time.

        Of the arithmetic alone: on a CPU most of the traffic stays in caches.
        """
        return None if not self.measured_s else self.computing_s(ceilings) / self.measured_s


def frames_per_second(parts: list[Part], ceilings: dict[str, Ceilings]) -> float:
    """Most frames a second of all parts together, one after another; by each part's dtype."""
    seconds = sum(p.per_frame * p.floor_s(ceilings[p.dtype]) for p in parts)
    return 1.0 / seconds if seconds else float("inf")


def measured_ceilings() -> Ceilings:
    """Of JAX's device here, float32: a large matrix product and a large copy; the best."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    def rate(function: Any, argument: Any, amount: float) -> float:
        # Into its own memory: new pages would be cleared by the system, in the measured time.
        compiled = jax.jit(function, donate_argnums=0)
        argument = jax.block_until_ready(compiled(argument))
        times: list[float] = []
        while len(times) < REPEATS or sum(times) < AT_LEAST_S:
            began = time.perf_counter()
            argument = jax.block_until_ready(compiled(argument))
            times.append(time.perf_counter() - began)
        return amount / min(times)  # a ceiling: what disturbed it is not part of it

    a = jax.device_put(np.eye(MATRIX, dtype=np.float32))
    b = jax.device_put(np.zeros(COPY_MB * 2**18, np.float32))
    flops = rate(lambda x: jnp.dot(x, x, precision="float32"), a, 2.0 * MATRIX**3)
    moved = rate(lambda x: x + 1.0, b, 2.0 * b.size * 4)
    return Ceilings(
        name=jax.devices()[0].device_kind, flops=flops, bytes=moved,
        source=f"measured: a product of {MATRIX} x {MATRIX} in f32, a copy of {COPY_MB} MB",
    )  # fmt: skip
