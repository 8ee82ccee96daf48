"""What is compared: parts, sizes, weights and inputs, the same numbers for every form."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.checkpoint.release import BUILT_IN
from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM
from vasa_jax.core.config import from_json, load_config
from vasa_jax.core.precision import BF16, F32
from vasa_jax.core.types import POSE, Controls
from vasa_jax.face.head.pose import POSE_DIM
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.warp.autoencoder import FaceConfig
from vasa_jax.face.warp.geometry import NUM_MAPS
from vasa_jax.generate.rolling import RollingConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclasses.dataclass(frozen=True)
class Part:
    """One row of the comparison."""

    name: str
    batch: int
    title: str
    frames: int = 0  # of video that one call makes; 0: none

    @property
    def key(self) -> str:
        return f"{self.name}/{self.batch}"


def parts(size: str, device: str, quick: bool) -> list[Part]:
    """Everything that is timed, the most telling first."""
    gpu = device == "gpu"
    many = (4 if quick else 32 if size == "lite" else 8) if gpu else (4 if size == "lite" else 2)
    windows = (8 if quick else 64) if gpu else 4
    hop = "live hop of 2 frames, end to end"
    window = "student, 4 steps" if size == "lite" else "full model, 3 branches"
    listed = [
        Part("render", 1, "render", 1),
        Part("render", many, "render", many),
        Part("window", 1, f"motion window of 50 frames ({window})", 50),
        Part("window", windows, f"motion window of 50 frames ({window})", 50 * windows),
        Part("warp", 1, "3D warp, two samplings"),
        Part("warp", many, "3D warp, two samplings"),
        Part("live", 1, hop, 2),
        Part("offline", 1, "50 frames, speech features to pixels", 50),
        Part("appearance", 1, "appearance of a portrait"),
        Part("train_motion", (32 if quick else 256) if gpu else (4 if quick else 16),
             "training step, motion"),
        Part("train_face", ((4 if quick else 16) if size == "lite" else 2) if gpu
             else (2 if quick else 4), "training step, face"),
    ]  # fmt: skip
    if size == "lite":
        listed += [
            Part("flow", many, "head, raster, flow and picture warp"),
            Part("guided", 1, "motion window, full model, 16 steps, 2 branches", 50),
        ]
    elif not gpu:
        # Fifty frames of half a TFLOP each say nothing that two do not.
        listed = [p for p in listed if p.name != "offline"]
    return listed


def smooth_picture(rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture (side, side, 3) in [-1, 1] of a few waves."""
    y, x = np.mgrid[:side, :side] / side
    waves = [
        np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-4, 4, (3, 3))
    ]  # fmt: skip
    return np.stack(waves, -1).astype(np.float32) * 0.8


def motions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Driving motions (count, 54) of a speaking head."""
    out = np.zeros((count, MOTION_DIM), np.float32)
    out[:, :9] = rng.normal(0, 0.06, (count, 9))
    out[:, POSE.start + 5] = 0.0
    out[:, EXPRESSION] = rng.uniform(0, 0.4, (count, EXPRESSION.stop - EXPRESSION.start))
    return out


def physical(stats: MotionStats, latent: np.ndarray) -> np.ndarray:
    """``MotionStats.denormalize`` on the host."""
    out = latent * stats.std + stats.mean
    out[..., POSE.start + 5] = 0.0
    out[..., EXPRESSION] = out[..., EXPRESSION].clip(0.0, 1.0)
    return out


def window_inputs(model: MotionModelConfig, cfg: RollingConfig, batch: int) -> dict[str, Any]:
    """Arguments of a rolling step but for params and state."""
    rng = np.random.default_rng(5)
    length = cfg.hop + cfg.lookahead(model)
    return {
        "audio_BAD": rng.normal(size=(batch, length, model.features.dim)).astype(np.float32),
        "valid_BA": np.ones((batch, length), bool),
        "controls": Controls.none(batch, length),
        "scales": {name: np.full(batch, 0.5, np.float32) for name in cfg.guided},
        "active_B": np.ones(batch, bool),
        "reset_B": np.zeros(batch, bool),
    }


def motion_batch(cfg: MotionTrainConfig, batch: int) -> dict[str, Any]:
    """A training batch as ``data.motions`` makes it, of random numbers, its noise drawn."""
    import jax

    from vasa_jax.train.motion import draw_window

    rng = np.random.default_rng(6)
    model = cfg.model
    k, w, ahead = model.past, model.window, model.lookahead_frames
    f32 = np.float32
    plain = {
        "features": rng.normal(size=(batch, k + w + ahead, model.features.dim)).astype(f32),
        "audio_valid": np.ones((batch, k + w + ahead), bool),
        "motion": rng.normal(0, 0.1, (batch, k + w, MOTION_DIM)).astype(f32),
        "motion_valid": np.ones((batch, k + w), bool),
        "controls": tuple(Controls.none(batch, w)),
        "viseme": rng.integers(-1, max(model.num_visemes, 1), (batch, k + w)).astype(np.int32),
        "trust": np.ones((batch, MOTION_DIM), f32),
    }
    drawn = draw_window(cfg, plain, jax.random.key(0))
    return jax.tree.map(np.asarray, drawn)


class LiteScene:
    """The lite release: its weights, a synthetic portrait, driving motions."""

    def __init__(self, quick: bool):
        from tools.torch_ref.weights import read_release

        self.params, config, stats = read_release(BUILT_IN / "lite")
        self.face = from_json(FaceConfig, config["face"]["model"])
        self.motion = from_json(MotionModelConfig, config["motion"]["model"])
        self.stats = MotionStats.from_json(stats["motion"]["motion"])
        rng = np.random.default_rng(1)
        self.image = smooth_picture(rng, self.face.size)
        self.identity = np.zeros(len(self.params["head"]["identity"]), np.float32)
        self.own = np.zeros(MOTION_DIM, np.float32)
        self.placement = np.array([0.0, 0.05, 0.071], np.float32)
        self.driving = motions(rng, 64)
        self.train_motion: MotionTrainConfig = load_config(str(CONFIGS / "motion_lite.py"))
        self.window_side = 96 if quick else 160  # of the training window, px

    def motion_params(self, part: str) -> Any:
        return self.params["motion" if part in ("guided", "train_motion") else "student"]

    def rolling(self, part: str) -> RollingConfig:
        if part == "guided":
            return RollingConfig(hop=50, steps=16, guided=("audio",))
        live = {"hop": 2, "ahead": 1} if part == "live" else {"hop": 50}
        return RollingConfig(steps=4, guided=(), **live)

    @functools.cached_property
    def head(self) -> Any:
        from vasa_jax.face.head.head import head_from_arrays

        return head_from_arrays(self.params["head"])

    def face_batch(self, batch: int) -> dict[str, np.ndarray]:
        """Random pictures and maps in place of a batch's geometry, channels last."""
        rng, n, side = np.random.default_rng(7), self.face.size, self.window_side

        def some(*shape: int) -> np.ndarray:
            return rng.uniform(-1, 1, (batch, *shape)).astype(np.float32)

        def flags(*shape: int) -> np.ndarray:
            return (rng.random((batch, *shape)) < 0.3).astype(np.float32)

        return {
            "source": some(n, n, 3), "opening": flags(n, n, 2), "warped": some(side, side, 6),
            "maps": flags(side, side, NUM_MAPS),
            "target": some(side, side, 3), "weight": 1.0 + 5.0 * flags(side, side, 1),
            "mouth": flags(side, side, 1),
            "source_motion": self.driving[:batch], "target_motion": self.driving[batch : 2 * batch],
            "placement": np.repeat(self.placement[None], batch, 0),
        }  # fmt: skip

    face_optim = OptimConfig(lr=8e-4, b2=0.99, weight_decay=1e-4, clip_norm=2.0, ema_decay=0.995)
    corner = 6  # of the training window, in cells


class FullScene:
    """The full model at 512 px with random weights; ``quick`` halves side, volume and widths."""

    def __init__(self, quick: bool):
        base = load_config(str(CONFIGS / "face_512.py"))
        self.motion_config: MotionTrainConfig = load_config(str(CONFIGS / "motion_base.py"))
        self.face: VolumetricConfig = dataclasses.replace(base.model, remat=(), precision=F32)
        steps = 10
        if quick:
            steps = 4
            self.face = dataclasses.replace(
                self.face, size=256, volume=(8, 32, 32, 48), encoder_widths=(32, 64, 128, 256),
                encoder_blocks=2, identity_code=128, identity_blocks=(1, 1, 1, 1), trunk_width=32,
                dynamics_blocks=(1, 1, 1, 1), warp_widths=(64, 32, 16),
                volume_widths=(96, 192, 256), decoder_width=256, decoder_blocks=4,
                decoder_up_widths=(128, 64, 32),
            )  # fmt: skip
        self.steps = steps
        self.motion = dataclasses.replace(self.motion_config.model, precision=F32)
        self.train_motion = dataclasses.replace(self.motion_config, model=self.motion)
        self.stats = MotionStats.unit()
        rng = np.random.default_rng(2)
        n = self.face.size
        self.image = smooth_picture(rng, n)
        self.mask = np.ones((n, n, 1), np.float32)
        self.driving = np.concatenate(
            [rng.normal(0, 0.1, (64, POSE_DIM)), rng.normal(0, 1, (64, self.face.dynamics))], 1
        ).astype(np.float32)

    def training_face(self, device: str) -> VolumetricConfig:
        """The model of the face's training step: on a CPU the one of ``face_512.py:smoke``."""
        if device == "gpu":
            return self.face
        smoke = load_config(f"{CONFIGS / 'face_512.py'}:smoke").model
        return dataclasses.replace(smoke, remat=(), dropout=0.0)

    def motion_params(self, part: str) -> Any:
        del part
        return self._motion_params

    @functools.cached_property
    def _motion_params(self) -> Any:
        import jax

        from tools.torch_ref.weights import random_weights
        from vasa_jax.motion.model import init_params

        shapes = jax.eval_shape(lambda k: init_params(self.motion, k), jax.random.key(0))
        return random_weights(shapes)

    def face_params(self, cfg: VolumetricConfig) -> Any:
        import jax

        from tools.torch_ref.weights import random_weights
        from vasa_jax.face.volume.autoencoder import VolumetricAutoencoder

        shapes = jax.eval_shape(VolumetricAutoencoder(cfg).init, jax.random.key(0))
        return random_weights(shapes)

    def rolling(self, part: str) -> RollingConfig:
        live = {"hop": 2, "ahead": 1} if part == "live" else {"hop": 50}
        return RollingConfig(steps=self.steps, guided=("audio", "gaze"), **live)

    def appearance(self) -> dict[str, np.ndarray]:
        """A canonical volume and identity map of the usual scale, channels last, batch 1."""
        rng = np.random.default_rng(3)
        return {
            "volume": rng.standard_normal((1, *self.face.volume), np.float32),
            "z_id": rng.standard_normal((1, 4, 4, self.face.identity_code), np.float32),
        }

    def face_batch(self, cfg: VolumetricConfig, batch: int) -> dict[str, np.ndarray]:
        rng, n, k = np.random.default_rng(8), cfg.size, cfg.dynamics_size
        out = {}
        for side in ("source", "driver"):
            out[side] = rng.uniform(-1, 1, (batch, n, n, 3)).astype(np.float32)
            out[f"{side}_mask"] = (rng.random((batch, n, n, 1)) < 0.7).astype(np.float32)
            out[f"{side}_pose"] = rng.normal(0, 0.1, (batch, POSE_DIM)).astype(np.float32)
            out[f"{side}_face"] = rng.uniform(-1, 1, (batch, k, k, 3)).astype(np.float32)
        return out

    face_optim = OptimConfig(lr=2e-4, b1=0.5, b2=0.999, clip_norm=0.0, ema_decay=0.999)


Scene = LiteScene | FullScene
BFLOAT16 = BF16


def scene(size: str, quick: bool) -> Scene:
    return LiteScene(quick) if size == "lite" else FullScene(quick)
