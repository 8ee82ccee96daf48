"""A net that was taught which mouth belongs to which sound, as a second judge of lip sync.

Two towers map what is seen of a mouth and what is heard to unit vectors, one per video frame; those
of the same moment lie close together (SyncNet, Chung and Zisserman 2016, with the contrastive loss
of van den Oord et al. 2018, arXiv 1807.03748). It knows nothing of phonemes and nothing of what
``sync.py`` measures, and of pictures only landmarks: a mouth, not a person or a light. Trained by
``train/sync_net.py``; the weights beside this file are read by ``load``.

::

    landmarks ─► mouth_curves ─► mouth tower ─┐
                                              ├─► cosine at every shift ─► confidence, lag
    sound ─────► log mel ──────► sound tower ─┘
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.audio import features as audio_features
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.tree import flatten, unflatten
from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.face.head.fit import INNER_LIPS, OUTER_LIPS
from vasa_jax.face.head.reader import STEADY
from vasa_jax.metrics.sync import OUTER_EYE_CORNERS, fill

WEIGHTS_FILE = Path(__file__).parent / "sync_net.npz"
CHIN = (152, 148, 377, 175, 199, 18, 200)
MOUTH = (*OUTER_LIPS, *INNER_LIPS, *CHIN)
CURVES = 2 * len(MOUTH)
NOSE_FOOT = 2
UNIT = 20.0  # of an eye distance: curves then move by about one half
MAX_LAG_FRAMES = 15
MIN_FRAMES = 50
SYNC_NET_KEYS = ("sync_net", "sync_net_lag", "sync_net_at_0", "sync_net_shifted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncNetConfig:
    """Sizes of the two towers."""

    width: int = 128
    depth: int = 3  # convolutions of 5 frames each
    embed: int = 64
    features: FeatureConfig = FeatureConfig()


class Tower(nn.Module):
    """(B, T, F) -> unit vectors (B, T, E), each from the frames around its own."""

    cfg: SyncNetConfig

    @nn.compact
    def __call__(self, x_BTF: jax.Array) -> jax.Array:
        c = self.cfg
        h = nn.Dense(c.width, name="rise")(x_BTF)
        for i in range(c.depth):
            step = nn.Conv(c.width, (5,), name=f"conv_{i}")(
                nn.silu(nn.LayerNorm(name=f"norm_{i}")(h))
            )
            h = h + step
        h = nn.Dense(c.embed, name="out")(nn.silu(nn.LayerNorm(name="norm")(h)))
        return h * jax.lax.rsqrt(jnp.square(h).sum(-1, keepdims=True) + 1e-6)


class SyncNet(nn.Module):
    """Mouth curves and sound features -> two unit vectors per frame, and the logits' scale."""

    cfg: SyncNetConfig = SyncNetConfig()

    @nn.compact
    def __call__(self, mouth_BTF: jax.Array, sound_BTD: jax.Array) -> tuple[jax.Array, ...]:
        scale = self.param("log_scale", nn.initializers.constant(2.3), ())
        mouth = Tower(self.cfg, name="mouth")(mouth_BTF)
        return mouth, Tower(self.cfg, name="sound")(sound_BTD), jnp.exp(scale)


def mouth_curves(landmarks_TL3: np.ndarray) -> np.ndarray:
    """(T, 94): how lips and chin lie against the clip's typical mouth, free of head and person.

    Every frame is brought onto the clip's typical face by the turn, scale and shift that fit the
    points which speech does not move, that face is put upright, and of each point of the mouth its
    median is taken away. Units: a twentieth of the distance of the outer eye corners, x then y per
    point. Missing frames (NaN) are filled from their neighbours.
    """
    points = np.asarray(landmarks_TL3, np.float64)
    shape = points.shape
    flat = points.reshape(len(points), -1)
    if not np.isfinite(flat).all():
        flat = np.stack([fill(column) for column in flat.T], 1)
    points = flat.reshape(shape)
    typical = points[len(points) // 2]
    for _ in range(2):
        moved = _onto(points, typical)
        typical = np.median(moved, axis=0)
    a, b = (typical[i] for i in OUTER_EYE_CORNERS)
    across = b - a
    size = max(float(np.linalg.norm(across)), 1e-9)
    down = typical[NOSE_FOOT] - (a + b) / 2
    x = across / size
    y = down - (down @ x) * x
    y = y / max(float(np.linalg.norm(y)), 1e-9)
    mouth = moved[:, list(MOUTH)]
    mouth = (mouth - np.median(mouth, axis=0)) * (UNIT / size)
    return np.stack([mouth @ x, mouth @ y], -1).reshape(len(points), -1).astype(np.float32)


def _onto(points_TL3: np.ndarray, target_L3: np.ndarray) -> np.ndarray:
    """Points of each frame after the similarity that fits the steady ones (Umeyama 1991)."""
    rows = list(STEADY)
    source, target = points_TL3[:, rows], target_L3[rows]
    middle = source.mean(1, keepdims=True)
    p, q = source - middle, target - target.mean(0)
    u, s, vt = np.linalg.svd(np.einsum("tli,lj->tij", p, q))
    sign = np.ones((len(p), 3))
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    turn = np.einsum("tij,tj,tjk->tik", u, sign, vt)
    scale = (s * sign).sum(1) / np.maximum(np.square(p).sum((1, 2)), 1e-12)
    return (points_TL3 - middle) @ turn * scale[:, None, None] + target.mean(0)


def shifted_agreement(mouth_TE: np.ndarray, sound_TE: np.ndarray) -> np.ndarray:
    """Mean cosine (31,) of mouth and sound at lags -15 .. 15; positive: the mouth is late."""
    n = min(len(mouth_TE), len(sound_TE))
    mouth, sound = mouth_TE[:n], sound_TE[:n]
    out = []
    for lag in range(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1):
        late, early = max(lag, 0), max(-lag, 0)
        out.append((mouth[late : n - early] * sound[early : n - late]).sum(-1).mean())
    return np.array(out)


def confidence(curve: np.ndarray) -> float:
    """Agreement at the best shift less the median over all shifts."""
    return float(curve.max() - np.median(curve))


def shifted_confidence(mouth_TE: np.ndarray, sound_TE: np.ndarray) -> float:
    """Mean confidence with the sound moved round by 30, 50 and 70 % of the clip."""
    turned = (np.roll(sound_TE, round(q * len(sound_TE)), axis=0) for q in (0.3, 0.5, 0.7))
    return float(np.mean([confidence(shifted_agreement(mouth_TE, s)) for s in turned]))


class SyncJudge:
    """The trained net, for whole clips."""

    def __init__(self, cfg: SyncNetConfig, params: Any):
        self.cfg, self.params = cfg, params

    def embed(self, curves_TF: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (T, E) of mouth and sound (mono, 16 kHz) of one clip."""
        frames = min(len(curves_TF), len(samples) // SAMPLES_PER_FRAME)
        if frames < MIN_FRAMES:
            raise ValueError(f"at least {MIN_FRAMES} frames of mouth and sound expected")
        # Few lengths, few programs: what is added at the end is cut off again.
        padded = -(-frames // 64) * 64
        mouth = np.pad(curves_TF[:frames], ((0, padded - frames), (0, 0)), mode="edge")
        sound = np.pad(
            np.asarray(samples[: frames * SAMPLES_PER_FRAME], np.float32),
            (0, (padded - frames) * SAMPLES_PER_FRAME),
        )
        m, s = _embed(self.cfg, self.params, mouth[None], sound[None])
        return np.asarray(m[0, :frames]), np.asarray(s[0, :frames])

    def measure(self, landmarks_TL3: np.ndarray, samples: np.ndarray) -> dict[str, float]:
        """Of one clip, from landmarks (T, 478, 3) in px and its sound; NaN for less than 2 s.

        ``sync_net``: cosine at the best shift less the median over all shifts, as SyncNet's
        confidence; ``sync_net_lag`` that shift, positive when the mouth is late;
        ``sync_net_at_0``: the same without looking for a shift; ``sync_net_shifted``: mean
        confidence with the sound moved round by 30, 50, 70 % of the clip.
        """
        frames = min(len(landmarks_TL3), len(samples) // SAMPLES_PER_FRAME)
        if frames < MIN_FRAMES or not np.isfinite(landmarks_TL3).any():
            return dict.fromkeys(SYNC_NET_KEYS, float("nan"))
        mouth, sound = self.embed(mouth_curves(landmarks_TL3), samples)
        curve = shifted_agreement(mouth, sound)
        return {
            "sync_net": confidence(curve),
            "sync_net_lag": float(int(np.argmax(curve)) - MAX_LAG_FRAMES),
            "sync_net_at_0": float(curve[MAX_LAG_FRAMES] - np.median(curve)),
            "sync_net_shifted": shifted_confidence(mouth, sound),
        }


@functools.partial(jax.jit, static_argnums=0)
def _embed(cfg: SyncNetConfig, params: Any, mouth_BTF: jax.Array, samples_BS: jax.Array):
    with jax.numpy_rank_promotion("allow"):
        sound = audio_features.features(cfg.features, samples_BS)
        out: Any = SyncNet(cfg).apply({"params": params}, mouth_BTF, sound)
    return out[0], out[1]


def save(path: str | Path, cfg: SyncNetConfig, params: Any) -> None:
    """Weights in half precision and their configuration, as one ``.npz``."""
    from vasa_jax.core.config import to_json
    from vasa_jax.io.atomic import replacing

    arrays = {k: np.asarray(v, np.float16) for k, v in flatten(params).items()}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, config=np.array(json.dumps(to_json(cfg))), **arrays)  # type: ignore[arg-type]


@functools.cache
def load(path: Path = WEIGHTS_FILE) -> SyncJudge:
    """The judge that comes with the package."""
    from vasa_jax.core.config import from_json

    with np.load(path, allow_pickle=False) as table:
        stored = json.loads(str(table["config"]))
        # A judge hears what it was trained on, or its figures could not be compared with older
        # ones: without a word of it, sound that is not conditioned.
        stored["features"] = {"highpass_hz": 0.0, "most_gain_db": 0.0} | stored["features"]
        cfg = from_json(SyncNetConfig, stored)
        arrays = {k: np.asarray(table[k], np.float32) for k in table.files if k != "config"}
    return SyncJudge(cfg, unflatten(arrays))
