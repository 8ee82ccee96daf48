"""Lips that must be shut and are not, in the space of named weights.

The mean square error knows no difference between lips that part by a hair where they must be shut
and lips that open a little less than they should, but a viewer does. ``unsealed`` charges only the
first: where it is unsure whether there is a p, b or m, the model then leans towards one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, LIPS
from vasa_jax.losses.diffusion import masked_mean
from vasa_jax.motion.arkit.lips import lip_gap_cm

SHUT_CM = 0.05  # lips that are no farther apart are shut


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
