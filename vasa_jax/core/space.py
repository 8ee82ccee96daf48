"""What a motion vector means: the space that a motion model generates in and a face is driven by.

Two kinds. ``arkit`` is the 54 named weights of the lite face (``core/arkit.py``). ``latent`` is
VASA-1's own (paper, section 3.1 and 3.2): head pose, then the holistic facial dynamics ``z_dyn``
that a trained stage 1 encodes. The first seven numbers are the pose in both.

A code means something only to the weights that made it. ``origin`` names them, and it is compared
wherever a motion model, latents and a face meet (``require``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from vasa_jax.core import arkit
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import POSE, POSE_NAMES


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    """Travels in ``MotionModelConfig``, so in every run and release."""

    kind: Literal["arkit", "latent"] = "arkit"
    dynamics: int = 128  # latent: numbers of z_dyn
    origin: str = ""  # latent: sha256 of the encoder's weights that define the code

    def __post_init__(self) -> None:
        if self.kind not in ("arkit", "latent"):
            raise ValueError(f"space: there are arkit and latent, not {self.kind!r}")
        if self.dynamics < 1:
            raise ValueError(f"space: {self.dynamics} numbers of dynamics")

    def describe(self) -> str:
        """In a few words, for lines that people read."""
        if self.kind == "arkit":
            return f"arkit ({arkit.MOTION_DIM} named weights)"
        origin = self.origin[:12] if self.origin else "of no known face"
        return f"latent ({len(POSE_NAMES)} + {self.dynamics} numbers, origin {origin})"


@dataclasses.dataclass(frozen=True, eq=False)
class MotionSpace:
    """Names, groups and bounds of the numbers of a motion vector; ``space_of`` makes it, once."""

    cfg: SpaceConfig
    names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]  # a partition; "pose" is 0:7 in every space
    heard: tuple[str, ...]  # the groups that the sound decides
    balance: Mapping[str, float]  # weight of each group in a loss, by default
    shown: tuple[str, ...]  # names whose curves a training log draws
    low: np.ndarray  # (M,) physical bounds; infinite where there is none
    high: np.ndarray  # (M,) the same as ``low`` where a number is fixed

    @property
    def dim(self) -> int:
        """M, numbers of a motion vector."""
        return len(self.names)

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each name."""
        return {name: i for i, name in enumerate(self.names)}

    @functools.cached_property
    def heard_numbers(self) -> np.ndarray:
        """Places of what the sound decides, rising."""
        return np.array(sorted(i for name in self.heard for i in self.groups[name]))

    @functools.cached_property
    def stretches(self) -> tuple[tuple[int, int, float, float], ...]:
        """(first, end, low, high) of neighbours that have the same bounds, in order."""
        pairs = list(zip(self.low.tolist(), self.high.tolist(), strict=True))
        ends = [i for i in range(1, self.dim) if pairs[i] != pairs[i - 1]] + [self.dim]
        starts = [0, *ends[:-1]]
        return tuple((a, b, *pairs[a]) for a, b in zip(starts, ends, strict=True))

    def per_dim(self, values: Mapping[str, float], default: float = 1.0) -> np.ndarray:
        """One number per dimension ``(M,)`` float32 from one per group.

        "heard" stands for all groups that the sound decides. Raises ValueError on another name.
        """
        out = np.full(self.dim, default, np.float32)
        for name, value in values.items():
            if name != "heard" and name not in self.groups:
                raise ValueError(f"no group {name!r}; there are heard, {', '.join(self.groups)}")
            out[self.heard_numbers if name == "heard" else list(self.groups[name])] = value
        return out

    def require(self, other: SpaceConfig, what: str) -> None:
        """Raises UserError, one line, unless ``what``, of space ``other``, is of this space."""
        if alike(self.cfg, other):
            return
        raise UserError(
            f"{what} is in the motion space {other.describe()}, but {self.cfg.describe()} is wanted"
        )


def space_config(table: Mapping[str, Any]) -> SpaceConfig:
    """The space of a motion stage's table in a release: its training config, or its nets' alone.

    Models from before there were two are ``arkit``.
    """
    return from_json(SpaceConfig, table.get("model", table).get("space", {}))


def alike(one: SpaceConfig, other: SpaceConfig) -> bool:
    """Whether a vector of one space means the same in the other."""
    if one.kind == "arkit" or other.kind == "arkit":
        return one.kind == other.kind
    return one.dynamics == other.dynamics and one.origin == other.origin


@functools.cache
def space_of(cfg: SpaceConfig) -> MotionSpace:
    """The motion space of a configuration."""
    return _arkit(cfg) if cfg.kind == "arkit" else _latent(cfg)


def _arkit(cfg: SpaceConfig) -> MotionSpace:
    low, high = _pose_bounds(arkit.MOTION_DIM)
    low[arkit.EXPRESSION], high[arkit.EXPRESSION] = 0.0, 1.0
    return MotionSpace(
        cfg=cfg, names=arkit.MOTION_NAMES, groups=arkit.GROUPS, heard=("lips", "mouth"),
        balance={"pose": 1.0, "gaze": 0.2, "lips": 0.4, "mouth": 0.2, "lids": 0.1, "upper": 0.1},
        shown=("yaw", "pitch", "gaze_yaw", "jawOpen", "mouthPucker", "mouthPress_L", "eyeBlink_L"),
        low=low, high=high,
    )  # fmt: skip


def _latent(cfg: SpaceConfig) -> MotionSpace:
    names = POSE_NAMES + tuple(f"z_dyn_{i}" for i in range(cfg.dynamics))
    low, high = _pose_bounds(len(names))
    groups = {
        "pose": tuple(range(POSE.start, POSE.stop)),
        "dynamics": tuple(range(POSE.stop, len(names))),
    }
    return MotionSpace(
        cfg=cfg, names=names, groups=groups, heard=("dynamics",),
        balance={"pose": 1.0, "dynamics": 1.0},
        shown=("yaw", "pitch", *names[POSE.stop : POSE.stop + 5]), low=low, high=high,
    )  # fmt: skip


def _pose_bounds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """No bounds, but for tz, which is zero in every space (``core/types.py``)."""
    low, high = np.full(count, -np.inf, np.float32), np.full(count, np.inf, np.float32)
    tz = POSE_NAMES.index("tz")
    low[tz], high[tz] = 0.0, 0.0
    return low, high


ARKIT = space_of(SpaceConfig())
