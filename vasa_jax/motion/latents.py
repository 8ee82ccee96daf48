"""Groups of the motion vector, and its normalisation.

The network sees ``(motion - mean) / std`` per dimension. Statistics are taken over the training set
and travel with the weights (``stats.json``); ``std`` has a floor, so that a dimension which hardly
moves is not blown up to unit variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM, MOTION_NAMES
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import Array

STD_FLOOR = 0.02


class MotionStats(NamedTuple):
    """Mean and standard deviation per dimension, ``(M,)`` each."""

    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def unit() -> MotionStats:
        """No normalisation at all."""
        return MotionStats(np.zeros(MOTION_DIM, np.float32), np.ones(MOTION_DIM, np.float32))

    @staticmethod
    def of(motion_TM: np.ndarray, *, floor: float = STD_FLOOR) -> MotionStats:
        """Statistics of ``(T, M)`` frames."""
        frames = np.asarray(motion_TM, np.float64)
        std = np.maximum(frames.std(0), floor)
        return MotionStats(frames.mean(0).astype(np.float32), std.astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        return {
            "names": list(MOTION_NAMES),
            "mean": [float(x) for x in self.mean],
            "std": [float(x) for x in self.std],
        }

    @staticmethod
    def from_json(table: Mapping[str, Any]) -> MotionStats:
        """Raises UserError when the table is for another motion vector."""
        if list(table.get("names", [])) != list(MOTION_NAMES):
            raise UserError("motion statistics name another motion vector; retrain or update them")
        return MotionStats(
            np.asarray(table["mean"], np.float32), np.asarray(table["std"], np.float32)
        )

    def normalize(self, motion: jax.Array) -> jax.Array:
        shape = (1,) * (motion.ndim - 1) + (-1,)
        return (motion - self.mean.reshape(shape)) / self.std.reshape(shape)

    def denormalize(self, latent: Array) -> Array:
        """Physical motion; expression weights are brought back into [0, 1] and tz to zero.

        Of a numpy array in numpy: outside of a program each operation of JAX's compiles one.
        """
        xp = np if isinstance(latent, np.ndarray) else jnp
        shape = (1,) * (latent.ndim - 1) + (-1,)
        motion = latent * self.std.reshape(shape) + self.mean.reshape(shape)
        tz = MOTION_NAMES.index("tz")
        low, high = motion[..., :tz], motion[..., tz + 1 : EXPRESSION.start]
        weights = xp.clip(motion[..., EXPRESSION], 0.0, 1.0)
        return xp.concatenate([low, xp.zeros_like(motion[..., :1]), high, weights], axis=-1)
