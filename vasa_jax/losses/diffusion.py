"""The objective of stage 2: x0 error, balanced between groups of the motion vector.

Equation 1 of the paper is a plain mean square error. In normalised units many numbers of dynamics
would drown the 7 of the pose, and many small ones the lips, so the error is the mean within each
group of the motion space (``MotionSpace.groups``), then a weighted sum over groups.
The optional velocity term is the same error of frame-to-frame differences.

The mean square error knows no difference between lips that part by a hair where they must be shut
and lips that open a little less than they should, but a viewer does. ``unsealed`` charges only the
first: where it is unsure whether there is a p, b or m, the model then leans towards one. It is for
named weights, since it must know which of them part the lips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, LIPS
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace
from vasa_jax.motion.arkit.lips import lip_gap_cm

SHUT_CM = 0.05  # lips that are no farther apart are shut


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionLossConfig:
    """Weights of the terms."""

    # Of groups of the motion space, over its balance, by which pose and dynamics (all other groups
    # together) weigh the same.
    groups: Mapping[str, float] = dataclasses.field(default_factory=dict)
    velocity: float = 0.0
    sealed: float = 0.0  # per cm^2 of what parts lips that should be shut (``unsealed``)
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


def unsealed(
    predicted_BTM: jax.Array, target_BTM: jax.Array, valid_BT: jax.Array,
    trust_BM: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Mean square gap in cm^2 between lips that are shut in the target, per example ``(B,)``.

    Motion is physical, not normalised. The mean is over all valid frames, so a rare closure costs
    as much as it would in the mean square error. ``trust_BM``: as in ``motion_loss``; the lips
    count as much as the least trusted of their weights.
    """
    shut = valid_BT & (lip_gap_cm(target_BTM[..., EXPRESSION]) < SHUT_CM)
    gap = lip_gap_cm(jnp.where(valid_BT[..., None], predicted_BTM[..., EXPRESSION], 0.0))
    mean = masked_mean(jnp.where(shut, jnp.square(gap), 0.0), valid_BT)
    return mean if trust_BM is None else mean * trust_BM[:, np.asarray(LIPS)].min(-1)
