"""Classifier-free guidance for any set of conditions: equation 2 of the paper.

    x0 = (1 + sum_c l_c) H(x, t, all) - sum_c l_c H(x, t, all but c)

All branches run in one call on a batch ``1 + C`` times as large, branch-major: row ``n B + b`` is
branch n of example b. Scales are arrays, so changing them never recompiles; which conditions have
a branch at all is static, because it decides the size of the batch.

``scales_at`` limits guidance to an interval of t (Kynkaanniemi et al. 2024, arXiv 2404.07724: at
the noisiest times it costs variety, at the cleanest it does nothing). A denoiser calls it with
its own t, ``combine(outputs, names, scales_at(scales, t, interval))``; the interval is an argument
of the compiled function like the scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp


def repeat_branches(x: jax.Array, num_branches: int) -> jax.Array:
    """``x`` stacked ``num_branches`` times along its leading axis."""
    return jnp.concatenate([x] * num_branches, axis=0) if num_branches > 1 else x


def branch_keep(names: Sequence[str], batch: int) -> dict[str, jax.Array]:
    """For each guided condition, a bool per row of the enlarged batch: is it kept there?

    Branch 0 keeps all; branch ``1 + i`` drops ``names[i]`` only.
    """
    count = 1 + len(names)
    branch = jnp.repeat(jnp.arange(count), batch)
    return {name: branch != 1 + i for i, name in enumerate(names)}


def scales_at(
    scales: Mapping[str, jax.Array], t: jax.Array, interval: tuple[jax.Array, jax.Array]
) -> dict[str, jax.Array]:
    """The scales at time ``t``: as given where ``interval[0] <= t <= interval[1]``, 0 elsewhere.

    Args:
        scales: for each condition a scalar or one scale per example ``(B,)``.
        t: time of the state, a scalar or ``(B,)``.
        interval: lowest and highest guided time, each a scalar or ``(B,)``; (0, 1) guides always.
    """
    low, high = interval
    inside = (t >= low) & (t <= high)
    return {name: jnp.where(inside, scale, jnp.zeros_like(scale)) for name, scale in scales.items()}


def combine(outputs: jax.Array, names: Sequence[str], scales: Mapping[str, jax.Array]) -> jax.Array:
    """Equation 2 on the outputs of the enlarged batch.

    Args:
        outputs: ``((1 + C) B, ...)``, branch-major as above.
        names: the guided conditions in branch order.
        scales: for each name a scalar, one scale per example ``(B,)``, or an array with as many
            axes as an output, as ``(1, 1, M)`` for a scale of each number of a motion.
    """
    count = 1 + len(names)
    branches = outputs.reshape(count, outputs.shape[0] // count, *outputs.shape[1:])
    full = branches[0]
    result = full
    for i, name in enumerate(names):
        scale = jnp.asarray(scales[name], outputs.dtype)
        scale = (
            scale.reshape(scale.shape + (1,) * (full.ndim - scale.ndim)) if scale.ndim else scale
        )
        # The same sum as equation 2, arranged so that scale 0 leaves the full branch untouched.
        result = result + scale * (full - branches[1 + i])
    return result
