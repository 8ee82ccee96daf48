"""The full face as one that is driven: relative poses, and the portrait's own background behind it.

The nets (``autoencoder.py``) know absolute poses and a foreground. Here a motion is relative to the
portrait (``core/types.py``): its pose is added to the one that the portrait was fitted in, and what
follows is ``z_dyn``, as ``E_dyn`` reads it from a picture. The drawn head is put over the
portrait's background by the decoder's matte, or where the model has none by the silhouette of the
fitted head. Where the portrait's head was, the background is painted from around.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace, SpaceConfig, space_of
from vasa_jax.core.tree import flatten
from vasa_jax.core.types import POSE, Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head import raster
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.head.head import Head, Pose
from vasa_jax.face.head.pose import (
    POSE_DIM,
    drive_pose,
    placement_of_pose,
    pose_vector,
    relative_pose,
)
from vasa_jax.face.model import Rendered
from vasa_jax.face.volume.autoencoder import (
    VolumetricAppearance,
    VolumetricAutoencoder,
    VolumetricConfig,
)
from vasa_jax.nn.fill import push_pull
from vasa_jax.nn.resample import binomial
from vasa_jax.runtime.programs import Program

MARGIN = 0.18  # of the foreground around the head model, in half sides; training's default
COARSE = 64  # px at most that a silhouette is drawn in


class Still(NamedTuple):
    """A head without its pose: one person (``heads.person``) with one face."""

    neutral: Array  # (V, 3) cm
    centers: Array  # (2, 3) cm
    expression: Array  # (45,)
    gaze: Array  # (2,) rad, camera frame


class Portrait(NamedTuple):
    """Everything kept of a portrait; a pytree without batch axis."""

    canonical: VolumetricAppearance
    pose: Array  # (7,) absolute: the anchor that motions are relative to
    z_dyn: Array  # (K,) its own dynamics
    still: Still  # for the silhouette, which knows no other expression
    background: Array  # (Y, X, 3) in [-1, 1]


class VolumetricFace:
    """A ``FaceModel`` of holistic dynamics; pure functions around one config and one reduced head.

    Args:
        origin: which ``E_dyn`` the codes are of, see ``origin_of``.
        margin: of the foreground that training showed the encoders.
    """

    kind = "volume"

    def __init__(
        self, cfg: VolumetricConfig, head: Head, *, origin: str = "", margin: float = MARGIN
    ):
        self.cfg = cfg
        self.margin = margin
        self.head: Head = jax.device_put(head)
        self.model = VolumetricAutoencoder(cfg)
        self.space: MotionSpace = space_of(
            SpaceConfig(kind="latent", dynamics=cfg.dynamics, origin=origin)
        )
        self._encode = Program(self.encode, closed_over=self.fixed)

    @property
    def size(self) -> int:
        return self.cfg.size

    @property
    def fixed(self) -> Hashable:
        return self.cfg, self.margin

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return self.model.init(key)

    def encode_appearance(self, params: Any, head: Head, image_YXC: Array, fit: FaceFit) -> Any:
        """Everything that is computed once per portrait (Y, X, 3) in [-1, 1].

        Raises UserError for a picture that has not the model's size.
        """
        n = self.size
        if image_YXC.shape != (n, n, 3):
            raise UserError(f"the model wants a crop of {n} x {n} px, got {image_YXC.shape}")
        return self._encode(params, head, image_YXC, fit.identity, fit.motion, fit.placement)

    def encode(self, params, head: Head, image_YXC, identity, motion, placement) -> Portrait:
        """Pure form of ``encode_appearance``: a picture and its fit."""
        pose = pose_vector(motion, placement)
        still = Still(*heads.person(head, identity), motion[EXPRESSION], motion[GAZE])
        mask = raster.silhouette(
            head, self._placed(head, still, pose), size=self.size, margin=self.margin
        )
        z_dyn = self._dynamics(params, image_YXC[None], pose[None])
        canonical = self.model.encode(
            params, image_YXC[None], mask[None, ..., None], pose[None], z_dyn
        )
        # No pixel of the soft edge stays: it has colours of the head.
        background = push_pull(image_YXC, (mask > 0.0).astype(image_YXC.dtype))
        return Portrait(jax.tree.map(lambda a: a[0], canonical), pose, z_dyn[0], still, background)

    def rest(self, appearance: Portrait) -> Array:
        """The portrait's own face in its own pose, (7 + K,)."""
        z_dyn = np.asarray(appearance.z_dyn)
        return np.concatenate([np.zeros(POSE_DIM, z_dyn.dtype), z_dyn])

    def encode_motion(
        self, params: Any, head: Head, image_BYXC: Array, fit_B: FaceFit, anchor: FaceFit
    ) -> Array:
        """Driving motions (B, 7 + K): poses from the fits, ``z_dyn`` from the pixels."""
        pose = jax.vmap(pose_vector)(fit_B.motion, fit_B.placement)
        own = pose_vector(anchor.motion, anchor.placement)
        z_dyn = self._dynamics(params, image_BYXC, pose)
        return jnp.concatenate([jax.vmap(lambda p: relative_pose(own, p))(pose), z_dyn], -1)

    def render(
        self, params: Any, head: Head, appearance: Portrait, motion_BM: Array, *,
        traced: bool = False,
    ) -> Rendered:  # fmt: skip
        """Pictures for driving motions (B, 7 + K). Of no pixel the origin is known."""
        pose = jax.vmap(lambda m: drive_pose(appearance.pose, m))(motion_BM[:, POSE])
        many = jax.tree.map(
            lambda a: jnp.broadcast_to(a, (len(pose), *a.shape)), appearance.canonical
        )
        drawn = self.model.decode(params, many, pose, motion_BM[:, POSE_DIM:])
        if self.cfg.matte:
            matte = drawn[..., 3]
        else:
            matte = jax.lax.map(lambda p: self._silhouette(head, appearance.still, p), pose)
        share = matte[..., None]
        return Rendered(share * drawn[..., :3] + (1.0 - share) * appearance.background, matte, None)

    def _dynamics(self, params: Any, image_BYXC: Array, pose_B7: Array) -> Array:
        return self.model.dynamics(params, self.model.aligned_faces(image_BYXC, pose_B7))

    def _placed(self, head: Head, still: Still, pose_7: Array) -> Array:
        turn = heads.rotation(pose_7[0], pose_7[1], pose_7[2])
        pose = Pose(turn, placement_of_pose(pose_7), still.expression, still.gaze)
        return heads.place_head(head, still.neutral, still.centers, pose)

    def _silhouette(self, head: Head, still: Still, pose_7: Array) -> Array:
        """Matte (Y, X) of a pose: training's foreground with an edge that is soft inwards.

        Beyond that foreground nobody taught the decoder anything.
        """
        coarse, n = min(self.size, COARSE), self.size
        mask = raster.silhouette(
            head, self._placed(head, still, pose_7), size=coarse, margin=self.margin
        )
        inner = 2.0 * binomial(mask[None, ..., None])[0, ..., 0] - 1.0
        return jnp.clip(jax.image.resize(jnp.maximum(inner, 0.0), (n, n), "linear"), 0.0, 1.0)


def origin_of(params: Any) -> str:
    """What names the code ``z_dyn``: sha256 over the weights of ``E_dyn``, by sorted path.

    They count in half precision, so that a release which stores them so has the same origin as the
    run that it is from.
    """
    digest = hashlib.sha256()
    with np.errstate(over="ignore"):
        for name, leaf in sorted(flatten(params["dynamics"]).items()):
            half = np.ascontiguousarray(np.asarray(leaf).astype("<f2"))
            digest.update(f"{name} {half.dtype.str} {half.shape}\n".encode())
            digest.update(half.tobytes())
    return digest.hexdigest()
