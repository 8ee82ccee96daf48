"""What can be read off a motion vector in any space: lips, lids, gaze.

A *readout* is an affine map from motion to numbers that people know. In the space of named weights
it follows from the names. In a learned space it is a linear probe, fitted by ridge regression on
motions whose numbers are known, when latents are made; it travels as ``stats["readout"]``.
Evaluation, distillation and soaks look at motion through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace
from vasa_jax.motion.arkit.lips import APERTURE

NAMES = ("aperture", "lid_L", "lid_R", "gaze_yaw", "gaze_pitch")
RIDGE = 1.0  # in squared deviations of the motion, per number


class Readout(NamedTuple):
    """``NAMES`` of a motion: aperture in weights, lids 0 (open) to 1, gaze in rad."""

    matrix: np.ndarray  # (M, R)
    bias: np.ndarray  # (R,)

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """(..., M) physical motion -> (..., R)."""
        return np.asarray(motion) @ self.matrix + self.bias

    def aperture(self, motion: np.ndarray) -> np.ndarray:
        """How far the lips are apart, (..., M) -> (...)."""
        i = NAMES.index("aperture")
        return np.asarray(motion) @ self.matrix[:, i] + self.bias[i]

    def lids(self, motion: np.ndarray) -> np.ndarray:
        """Both lids, (..., M) -> (..., 2)."""
        at = slice(NAMES.index("lid_L"), NAMES.index("lid_R") + 1)
        return np.asarray(motion) @ self.matrix[:, at] + self.bias[at]

    def to_json(self) -> dict[str, Any]:
        return {
            "names": list(NAMES),
            "matrix": self.matrix.T.tolist(),
            "bias": self.bias.tolist(),
        }


def readout_of(space: MotionSpace, stats: Mapping[str, Any]) -> Readout | None:
    """The readout of a space: by its names, or ``stats["readout"]``; None where there is none.

    Raises UserError when that table is for another motion vector.
    """
    if space.cfg.kind == "arkit":
        return _by_name(space)
    table = stats.get("readout")
    if table is None:
        return None
    matrix = np.asarray(table["matrix"], np.float32).T
    if list(table["names"]) != list(NAMES) or matrix.shape != (space.dim, len(NAMES)):
        raise UserError("the readout is for another motion vector; make the latents again")
    return Readout(matrix, np.asarray(table["bias"], np.float32))


def fit_readout(motion_TM: np.ndarray, known_TR: np.ndarray, *, ridge: float = RIDGE) -> Readout:
    """Ridge regression of known numbers ``(T, R)`` on motion ``(T, M)`` (Hoerl, Kennard 1970).

    Motion is standardised first, so that the penalty does not depend on its units.
    """
    x, y = np.asarray(motion_TM, np.float64), np.asarray(known_TR, np.float64)
    mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
    z = (x - mean) / std
    gram = z.T @ z + ridge * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, z.T @ (y - y.mean(0))) / std[:, None]
    return Readout(slope.astype(np.float32), (y.mean(0) - mean @ slope).astype(np.float32))


def _by_name(space: MotionSpace) -> Readout:
    matrix = np.zeros((space.dim, len(NAMES)), np.float32)
    columns: dict[str, Mapping[str, float]] = {
        "aperture": APERTURE,
        **{f"lid_{side}": {f"eyeBlink_{side}": 1.0} for side in "LR"},
        **{name: {name: 1.0} for name in ("gaze_yaw", "gaze_pitch")},
    }
    for column, name in enumerate(NAMES):
        for weight, share in columns[name].items():
            matrix[space.index[weight], column] = share
    return Readout(matrix, np.zeros(len(NAMES), np.float32))
