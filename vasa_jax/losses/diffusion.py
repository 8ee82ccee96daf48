"""The objective of stage 2: x0 error, balanced between groups of the motion vector.

Equation 1 of the paper is a plain mean square error. In normalised units many numbers of dynamics
would drown the 7 of the pose, and many small ones the lips, so the error is the mean within each
group of the motion space (``MotionSpace.groups``), then a weighted sum over groups.
The optional velocity term is the same error of frame-to-frame differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionLossConfig:
    """Weights of the terms."""

    # Of groups of the motion space, over its balance, by which pose and dynamics (all other groups
    # together) weigh the same.
    groups: Mapping[str, float] = dataclasses.field(default_factory=dict)
    velocity: float = 0.0
    sealed: float = 0.0  # per cm^2 of what parts lips that should be shut (``losses/closures.py``)
    auxiliary: float = 0.0  # the audio encoder's own guess of what is heard
    viseme: float = 0.0  # the audio encoder's guess of the viseme


def group_weights(cfg: MotionLossConfig, space: MotionSpace) -> np.ndarray:
    """Weight per dimension ``(M,)``: the group's weight divided by its size.

    Raises UserError for a group that the space does not have.
    """
    unknown = set(cfg.groups) - set(space.groups)
    if unknown:
        raise UserError(
            f"loss.groups: no {', '.join(sorted(unknown))} in {space.cfg.describe()}; there are "
            f"{', '.join(space.groups)}"
        )
    weights = {**space.balance, **cfg.groups}
    return space.per_dim({n: weights[n] / len(index) for n, index in space.groups.items()})


def masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over axis 1 of the frames that are valid: ``(B, T) -> (B,)``; zero where none is."""
    weight = valid.astype(jnp.float32)
    # where, not a product: an invalid frame may hold NaN.
    return jnp.where(valid, x, 0.0).sum(1) / jnp.maximum(weight.sum(1), 1.0)


def motion_loss(
    cfg: MotionLossConfig, space: MotionSpace, predicted_BTM: jax.Array, target_BTM: jax.Array,
    valid_BT: jax.Array, trust_BM: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:  # fmt: skip
    """Per-example loss ``(B,)`` and the mean square error of each group (scalars, for the log).

    ``trust_BM`` scales the weight of dimensions per example: 0 where a data source does not know
    a dimension, 1 where it does.
    """
    weights = jnp.asarray(group_weights(cfg, space))[None, :]
    if trust_BM is not None:
        weights = weights * trust_BM
    target = jnp.where(valid_BT[..., None], target_BTM, 0.0)
    predicted = jnp.where(valid_BT[..., None], predicted_BTM, 0.0)
    squared = jnp.square(predicted - target)
    per_example = masked_mean((squared * weights[:, None]).sum(-1), valid_BT)
    if cfg.velocity:
        both = valid_BT[:, 1:] & valid_BT[:, :-1]
        change = jnp.square(jnp.diff(predicted, axis=1) - jnp.diff(target, axis=1))
        per_example += cfg.velocity * masked_mean((change * weights[:, None]).sum(-1), both)
    terms = {
        name: masked_mean(squared[..., np.asarray(index)].mean(-1), valid_BT).mean()
        for name, index in space.groups.items()
    }
    return per_example, terms
