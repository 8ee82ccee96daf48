"""The motion model as samplers take it: (noisy window, time) -> clean window, guided.

Equation 2 of the paper over any set of conditions, all branches in one call of the network. The
rolling step, distillation and tools all make their denoiser here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Controls
from vasa_jax.diffusion import guidance
from vasa_jax.diffusion.samplers import Denoiser
from vasa_jax.motion.conditions import Keep
from vasa_jax.motion.model import MotionModel, MotionModelConfig


class Seen(NamedTuple):
    """What the network is shown of B windows of T frames after K past ones; a pytree."""

    features: jax.Array  # (B, K + T + lookahead, D)
    audio_valid: jax.Array  # (B, K + T + lookahead) bool
    past: jax.Array  # (B, K, M) normalised
    past_valid: jax.Array  # (B, K) bool
    motion_valid: jax.Array  # (B, T) bool
    controls: Controls  # of the T frames
    keep: Keep  # conditions dropped in all branches; {} drops none


def guided_denoiser(
    model: MotionModelConfig,
    params: Any,
    seen: Seen,
    scales: Mapping[str, jax.Array],
    *,
    interval: tuple[jax.Array, jax.Array] | None = None,
) -> Denoiser:
    """``(x (B, T, M), t ()) -> x0 (B, T, M)``, normalised. The sound is encoded here, once.

    Args:
        scales: guidance scale of each condition that gets a branch; shapes as in
            ``guidance.combine``.
        interval: lowest and highest diffusion time at which guidance acts; None: at all times.
    """
    names = tuple(scales)
    count, batch = 1 + len(names), seen.past.shape[0]
    many = jax.tree.map(lambda x: guidance.repeat_branches(x, count), seen)
    keep = dict(many.keep)
    for name, branch in guidance.branch_keep(names, batch).items():
        keep[name] = keep[name] & branch if name in keep else branch
    net, variables = MotionModel(model), {"params": params}
    tokens = net.apply(variables, many.features, many.audio_valid, keep, method="encode")

    def denoise(x_BTM: jax.Array, t: jax.Array) -> jax.Array:
        out: Any = net.apply(
            variables, guidance.repeat_branches(x_BTM, count),
            jnp.broadcast_to(t, (count * batch,)), method="denoise", audio_BAD=tokens,
            past_BKM=many.past, past_valid_BK=many.past_valid, motion_valid_BT=many.motion_valid,
            controls=many.controls, keep=keep,
        )  # fmt: skip
        now = scales if interval is None else guidance.scales_at(scales, t, interval)
        return guidance.combine(out, names, now)

    return denoise
