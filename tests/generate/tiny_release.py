"""A release of random weights, small enough for tests; its head is the drawn face itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.face.drawn_face import drawn_face
from tests.face.tiny_volumetric import TINY
from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.checkpoint.release import save_release
from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.core.config import to_json
from vasa_jax.core.space import SpaceConfig
from vasa_jax.face.faces import build_face, space_of_face
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.face.head.fit import LID_PAIRS
from vasa_jax.face.head.head import Head
from vasa_jax.face.warp.autoencoder import FaceConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params
from vasa_jax.motion.transformer import TransformerConfig

FACE = FaceConfig(
    size=64,
    volume=(4, 8, 8, 4),
    encoder_width=8,
    code=8,
    warp_width=4,
    decoder_widths=(4, 8, 8),
    margin=0,
)
MOTION = MotionModelConfig(
    encoder=EncoderConfig(width=16, hidden=16, num_blocks=1),
    transformer=TransformerConfig(depth=1, width=16, num_heads=2),
    window=20,
    past=5,
)


def tiny_head() -> Head:
    """478 vertices at the landmarks of the drawn face, in cm; expressions open and shift them."""
    from scipy.spatial import Delaunay

    (face,) = FaceFinder().find(drawn_face())
    points = align.to_crop(face.landmarks, align.crop_from_landmarks(face.landmarks))
    base = (points - 0.5) * np.array([28.0, -28.0, -28.0]) + np.array([0.0, 0.0, 4.0])
    base = base.astype(np.float32)
    triangles = Delaunay(base[:, :2]).simplices.astype(np.int32)
    a, b, c = (base[triangles[:, i], :2] for i in range(3))
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    triangles = np.where((turn > 0)[:, None], triangles, triangles[:, ::-1])
    extent = base[triangles].max(1) - base[triangles].min(1)
    triangles = triangles[np.argsort(extent[:, :2].max(-1), kind="stable")]
    v, rng = len(base), np.random.default_rng(0)
    expression = rng.normal(0, 0.05, (len(EXPRESSION_NAMES), v, 3)).astype(np.float32)
    centers = np.stack([base[473], base[468]])
    return Head(
        base=base,
        identity=rng.normal(0, 0.05, (3, v, 3)).astype(np.float32),
        expression=expression,
        look=np.zeros((8, v, 3), np.float32),
        triangles=np.ascontiguousarray(triangles),
        group=np.zeros(len(triangles), np.int32),
        rigid=np.ones(v, np.float32),
        eye=np.zeros(v, np.float32),
        eye_center=centers,
        eye_center_identity=np.zeros((3, 2, 3), np.float32),
        iris_angle=np.full(v, 9.0, np.float32),
        landmark_vertices=np.repeat(np.arange(v, dtype=np.int32)[:, None], 6, 1),
        landmark_weights=np.eye(6, dtype=np.float32)[np.zeros(v, int)],
        landmark_trust=np.ones(v, np.float32),
        lids=np.array(LID_PAIRS, np.int32),
        lids_shut=np.zeros((2, 2), np.float32),
    )


def _random(init: Callable[[jax.Array], Any]) -> Any:
    """Weights of the shapes that ``init`` makes, without the time to compile it."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), shapes)


def tiny_release(
    folder: Path,
    generate: dict[str, Any] | None = None,
    *,
    kind: str = "warp",
    space: SpaceConfig | None = None,
) -> Path:
    """Writes the release and returns its folder; ``generate`` says how it is sampled.

    ``kind`` is that of its face, see ``face/faces.py``; its motion model makes motion in the face's
    own space, or in ``space``.
    """
    head = tiny_head()
    table = {"kind": kind, "model": to_json({"warp": FACE, "volume": TINY}[kind])}
    face = _random(build_face(table, head).init)
    model = dataclasses.replace(MOTION, space=space or space_of_face(table, face).cfg)
    motion = _random(lambda key: init_params(model, key))
    unit = MotionStats.unit(model.motion_space)
    stats = dataclasses.replace(unit, std=np.full_like(unit.std, 0.05))
    save_release(
        folder,
        {"face": face, "motion": motion, "head": head},
        {
            "face": table,
            "motion": {"model": to_json(model)},
            "generate": generate or {},
        },
        {"motion": {"motion": stats.to_json()}},
        "random weights",
    )
    return folder
