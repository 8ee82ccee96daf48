"""Every face there is, by the kind that a release's ``config["face"]`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, MotionSpace, SpaceConfig, space_of
from vasa_jax.face.head.head import Head
from vasa_jax.face.model import FaceModel
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.volume.face import MARGIN, VolumetricFace, origin_of
from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig

FACES: dict[str, type] = {"warp": FaceConfig, "volume": VolumetricConfig}
"""The configuration of the nets of each kind."""


def kind_of(table: Mapping[str, Any]) -> str:
    """The kind that a release's table names, ``warp`` where it names none.

    Raises UserError for a kind that is not known here.
    """
    kind = table.get("kind", "warp")
    if kind not in FACES:
        raise UserError(f"a face of kind {kind!r}; there are {', '.join(FACES)}")
    return kind


def config_of(table: Mapping[str, Any]) -> Any:
    """The nets' configuration from a table: a training run's, or the nets' alone."""
    cls = FACES[kind_of(table)]
    return from_json(cls, table.get("model", {k: v for k, v in table.items() if k != "kind"}))


def space_of_face(table: Mapping[str, Any], params: Any) -> MotionSpace:
    """What motions of a face of these weights mean; its origin is found in them."""
    if kind_of(table) == "warp":
        return ARKIT
    cfg = config_of(table)
    return space_of(SpaceConfig(kind="latent", dynamics=cfg.dynamics, origin=origin_of(params)))


def build_face(
    table: Mapping[str, Any], head: Head, *, space: MotionSpace | None = None
) -> FaceModel:
    """The face that a release's ``config["face"]`` describes, around a reduced head.

    ``space`` is what its motions shall mean (``space_of_face``). Raises UserError for an unknown
    kind, for values that its configuration does not take, and for a space of another kind or size.
    """
    origin = "" if space is None else space.cfg.origin
    margin = table.get("loss", {}).get("foreground_margin", MARGIN)
    face = face_of(config_of(table), head, origin=origin, margin=margin)
    if space is not None:
        face.space.require(space.cfg, "what the face is asked for")
    return face


def face_of(
    cfg: FaceConfig | VolumetricConfig, head: Head, *, origin: str = "", margin: float = MARGIN
) -> FaceModel:
    """The face of a configuration; origin and margin are those of ``VolumetricFace``."""
    if isinstance(cfg, FaceConfig):
        return FaceAutoencoder(cfg, head)
    return VolumetricFace(cfg, head, origin=origin, margin=margin)
