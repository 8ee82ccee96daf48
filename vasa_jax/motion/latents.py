"""Normalisation of the motion vector: what the network sees.

It is ``(motion - mean) / std`` per dimension. Statistics are taken over the training set and travel
with the weights (``stats.json``); ``std`` has a floor, so that a dimension which hardly moves is
not blown up to unit variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.config import from_json, to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, MotionSpace, SpaceConfig
from vasa_jax.core.types import Array

STD_FLOOR = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class MotionStats:
    """Mean and standard deviation per dimension, ``(M,)`` each, of motion in ``space``."""

    mean: np.ndarray
    std: np.ndarray
    space: MotionSpace = ARKIT

    @staticmethod
    def unit(space: MotionSpace = ARKIT) -> MotionStats:
        """No normalisation at all."""
        return MotionStats(np.zeros(space.dim, np.float32), np.ones(space.dim, np.float32), space)

    @staticmethod
    def of(
        motion_TM: np.ndarray, *, floor: float = STD_FLOOR, space: MotionSpace = ARKIT
    ) -> MotionStats:
        """Statistics of ``(T, M)`` frames."""
        frames = np.asarray(motion_TM, np.float64)
        std = np.maximum(frames.std(0), floor)
        return MotionStats(frames.mean(0).astype(np.float32), std.astype(np.float32), space)

    def to_json(self) -> dict[str, Any]:
        return {
            "space": to_json(self.space.cfg),
            "names": list(self.space.names),
            "mean": [float(x) for x in self.mean],
            "std": [float(x) for x in self.std],
        }

    @staticmethod
    def from_json(table: Mapping[str, Any], space: MotionSpace = ARKIT) -> MotionStats:
        """Raises UserError when the table is for another motion vector than ``space`` has."""
        if "space" in table:  # earlier versions knew one alone
            space.require(from_json(SpaceConfig, table["space"]), "the table of motion statistics")
        if list(table.get("names", [])) != list(space.names):
            raise UserError("motion statistics name another motion vector; retrain or update them")
        return MotionStats(
            np.asarray(table["mean"], np.float32), np.asarray(table["std"], np.float32), space
        )

    def normalize(self, motion: jax.Array) -> jax.Array:
        shape = (1,) * (motion.ndim - 1) + (-1,)
        return (motion - self.mean.reshape(shape)) / self.std.reshape(shape)

    def denormalize(self, latent: Array) -> Array:
        """Physical motion, within the bounds of its space (named weights in [0, 1], tz zero).

        Of a numpy array in numpy: outside of a program each operation of JAX's compiles one.
        """
        xp = np if isinstance(latent, np.ndarray) else jnp
        shape = (1,) * (latent.ndim - 1) + (-1,)
        motion = latent * self.std.reshape(shape) + self.mean.reshape(shape)
        parts = []
        for start, stop, low, high in self.space.stretches:
            part = motion[..., start:stop]
            if low == high:
                part = xp.full_like(part, low)
            elif np.isfinite(low) or np.isfinite(high):
                part = xp.clip(part, low, high)
            parts.append(part)
        return xp.concatenate(parts, axis=-1)
