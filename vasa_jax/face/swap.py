"""Stage 1 by itself: a picture and somebody's pose and dynamics in, a picture out.

What ``generate`` does with a motion from speech, this does with a motion seen in a picture, so that
pose, dynamics and identity can be swapped one by one (VASA-1 section 3.1)::

    source picture ──fit──► identity, own pose ──encode──► Source
    driver picture ──fit──► rotation, place, size | expression, gaze
    Reenactor.swap(source, pose of one, dynamics of another) ──► Reenactor.render(Source, ...)

Poses are absolute: the head turns as the driver's, and the face is put where the driver's is in the
square, as large as it is there. The driver's distance stays out: one picture does not tell a small
head nearby from a large one further off.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM
from vasa_jax.core.types import POSE, Array
from vasa_jax.face.faces import build_face, space_of_face
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import FaceFit, fit_portrait
from vasa_jax.face.head.head import Head
from vasa_jax.face.head.pose import pose_vector, relative_pose
from vasa_jax.face.model import from_uint8, to_uint8
from vasa_jax.face.volume.face import VolumetricFace
from vasa_jax.face.warp.autoencoder import Appearance, FaceAutoencoder

ENDS = (10, 152)  # landmarks at the top of the forehead and at the chin


class Source(NamedTuple):
    """A portrait that has been encoded, and how its face was read."""

    fit: Any  # FaceFit, or CodedFit
    appearance: Any  # of the face's own kind


class Swaps:
    """What is read in pictures of one head model, and put together anew. Squares have ``size``."""

    def __init__(self, head: Head, size: int):
        self.head, self.size = head, size

        def points(head: Any, identity_I, motion_54, placement_3):
            neutral, centers = heads.person(head, identity_I)
            pose = heads.absolute_pose(motion_54, placement_3)
            return heads.landmarks(head, heads.place_head(head, neutral, centers, pose))

        self._points = jax.jit(points)

    def fit(self, landmarks_px: np.ndarray) -> FaceFit:
        """How the head model reads landmarks (478, 3) of the square."""
        return fit_portrait(self.head, np.asarray(landmarks_px) / np.float32(self.size))

    def swap(self, source: FaceFit, pose: FaceFit, dynamics: FaceFit) -> tuple[np.ndarray, ...]:
        """Absolute motion (54,) and placement (3,) for the source's person.

        ``pose`` gives rotation, and the place and size of the level face in the square;
        ``dynamics`` gives expression and gaze.
        """
        motion = np.array(dynamics.motion, np.float32)
        motion[POSE] = np.asarray(pose.motion)[POSE]
        (own, height), (middle, size) = self._level_face(source), self._level_face(pose)
        cx, cy, s = (float(x) for x in pose.placement)
        scale = s * size / height
        return motion, np.array([cx, cy + s * middle - scale * own, scale], np.float32)

    def _level_face(self, fit: FaceFit) -> tuple[float, float]:
        """Middle (down) and height of the fitted person's level face in units of the scale."""
        level = np.zeros(MOTION_DIM, np.float32)
        unit = np.array([0.0, 0.0, 1.0], np.float32)
        y = np.asarray(
            self._points(self.head, jnp.asarray(fit.identity), level, unit)[:, 1], np.float64
        )
        return float(y[list(ENDS)].mean()), float(y[ENDS[1]] - y[ENDS[0]])

    def landmarks(self, fit: FaceFit) -> np.ndarray:
        """Landmarks (478, 3) px of a face of known parameters; z away from the viewer."""
        p = self._points(
            self.head, jnp.asarray(fit.identity), jnp.asarray(fit.motion, jnp.float32),
            jnp.asarray(fit.placement, jnp.float32),
        )  # fmt: skip
        points, half = np.array(p), self.size / 2
        points[:, :2] = (points[:, :2] + 1) * half
        points[:, 2] *= -float(fit.placement[2]) * half  # cm towards the viewer -> px away
        return points


class Reenactor(Swaps):
    """Stage 1 of a release with a lite face, with its compiled functions."""

    methods = ("copy", "warp", "model", "exact")

    def __init__(self, model: FaceAutoencoder, params: Any):
        super().__init__(model.head, model.cfg.size)
        self.model, self.params = model, params

        def dynamics(nets: Any, expression: Array, gaze: Array) -> Array:
            return nets.dynamics(expression, gaze)

        def code(params: Any, expression_BE: Array, gaze_B2: Array) -> Any:
            return model.nets.apply({"params": params}, expression_BE, gaze_B2, method=dynamics)

        def picture(params: Any, head: Any, appearance: Appearance, motion_54, placement_3):
            pose = jax.tree.map(lambda a: a[None], heads.absolute_pose(motion_54, placement_3))
            image = model.render_pose(params, head, appearance, pose)[0]
            return to_uint8(image)

        def warp(head: Any, appearance: Appearance, motion_54, placement_3):
            pose = jax.tree.map(lambda a: a[None], heads.absolute_pose(motion_54, placement_3))
            return to_uint8(model.warp_pose(head, appearance, pose)[0][0, ..., :3])

        self._code, self._picture, self._warp = jax.jit(code), jax.jit(picture), jax.jit(warp)

    def read(self, landmarks_px: np.ndarray, picture_u8: np.ndarray) -> FaceFit:
        """How ``E_pose`` and ``E_dyn`` read a square: of its landmarks alone."""
        del picture_u8
        return self.fit(landmarks_px)

    def source(self, picture_u8: np.ndarray, fit: FaceFit) -> Source:
        """Encodes a square picture whose face is ``fit``."""
        model = self.model
        appearance = model.encode_appearance(self.params, model.head, from_uint8(picture_u8), fit)
        return Source(fit, appearance)

    def render(self, source: Source, motion_54: np.ndarray, placement_3: np.ndarray) -> np.ndarray:
        """The source's person in an absolute motion and placement, uint8 (size, size, 3)."""
        run = functools.partial(self._picture, self.params, self.model.head, source.appearance)
        return np.asarray(run(jnp.asarray(motion_54), jnp.asarray(placement_3)))

    def warp(self, source: Source, motion_54: np.ndarray, placement_3: np.ndarray) -> np.ndarray:
        """The same by geometry alone, without decoder."""
        run = functools.partial(self._warp, self.model.head, source.appearance)
        return np.asarray(run(jnp.asarray(motion_54), jnp.asarray(placement_3)))

    def dynamics_code(self, motion_BM: np.ndarray) -> np.ndarray:
        """``z_dyn`` (B, code) of motions (B, 54): a function of expression and gaze alone."""
        m = np.asarray(motion_BM, np.float32)
        return np.asarray(self._code(self.params, m[:, EXPRESSION], m[:, GAZE]))

    def codes(
        self, source: Source, read: FaceFit, true_motion_54: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is known of a picture as codes: of its dynamics, of the true ones, of its person."""
        z_dyn, true = self.dynamics_code(np.stack([read.motion, true_motion_54]))
        return {"z_dyn": z_dyn, "z_dyn_true": true, "z_id": source.appearance.z_id}


class CodedFit(NamedTuple):
    """A ``FaceFit`` and the code of the picture it was read in."""

    identity: Array
    motion: Array
    placement: Array
    error: Array
    shape: Array | None
    code: Array  # (K,) z_dyn


class VolumeReenactor(Swaps):
    """Stage 1 of a release with a full face: its dynamics are a code of the driver's picture.

    It has no geometry of its own to be compared with, and nothing to be given true parameters in.
    """

    methods = ("copy", "model")

    def __init__(self, face: VolumetricFace, params: Any):
        super().__init__(face.head, face.size)
        self.face, self.params = face, params

        def picture(params: Any, head: Any, appearance: Any, motion_54, placement_3, code_K):
            goal = relative_pose(appearance.pose, pose_vector(motion_54, placement_3))
            motion = jnp.concatenate([goal, code_K])[None]
            return to_uint8(face.render(params, head, appearance, motion).image[0])

        def code(params: Any, head: Any, image_YXC, motion_54, placement_3):
            one = FaceFit(jnp.zeros(()), motion_54, placement_3, jnp.zeros(()))
            many = jax.tree.map(lambda a: jnp.asarray(a)[None], one)
            return face.encode_motion(params, head, image_YXC[None], many, one)[0, POSE.stop :]

        self._picture, self._code = jax.jit(picture), jax.jit(code)

    def read(self, landmarks_px: np.ndarray, picture_u8: np.ndarray) -> CodedFit:
        """How ``E_pose`` reads a square's landmarks, and ``E_dyn`` its pixels."""
        return self.coded(self.fit(landmarks_px), picture_u8)

    def coded(self, fit: Any, picture_u8: np.ndarray) -> CodedFit:
        """A fit with the code of its picture."""
        found = self._code(
            self.params, self.head, from_uint8(picture_u8), jnp.asarray(fit.motion),
            jnp.asarray(fit.placement),
        )  # fmt: skip
        plain = (fit.identity, fit.motion, fit.placement, fit.error, fit.shape)
        return CodedFit(*plain, np.asarray(found))

    def swap(self, source: Any, pose: Any, dynamics: Any) -> tuple[np.ndarray, ...]:
        """As ``Swaps.swap``, and the code (K,) of what gives the dynamics."""
        return *super().swap(source, pose, dynamics), np.asarray(dynamics.code)

    def source(self, picture_u8: np.ndarray, fit: Any) -> Source:
        """Encodes a square picture whose face is ``fit``."""
        plain = FaceFit(fit.identity, fit.motion, fit.placement, fit.error, fit.shape)
        face = self.face
        appearance = face.encode_appearance(self.params, face.head, from_uint8(picture_u8), plain)
        return Source(fit, appearance)

    def render(
        self, source: Source, motion_54: np.ndarray, placement_3: np.ndarray, code_K: np.ndarray
    ) -> np.ndarray:
        """The source's person in an absolute pose with a code, uint8 (size, size, 3)."""
        run = functools.partial(self._picture, self.params, self.head, source.appearance)
        return np.asarray(run(*(jnp.asarray(x) for x in (motion_54, placement_3, code_K))))

    def codes(
        self, source: Source, read: CodedFit, true_motion_54: np.ndarray
    ) -> dict[str, np.ndarray]:
        """As ``Reenactor.codes``; true dynamics have no code here."""
        del true_motion_54
        z_id = np.asarray(source.appearance.canonical.z_id)
        return {"z_dyn": np.asarray(read.code), "z_id": z_id.mean((0, 1))}


def reenactor_of(table: Mapping[str, Any], params: Any, head: Head) -> Reenactor | VolumeReenactor:
    """The swaps of a release's face (``config["face"]`` and its weights)."""
    face = build_face(table, head, space=space_of_face(table, params))
    if isinstance(face, VolumetricFace):
        return VolumeReenactor(face, params)
    assert isinstance(face, FaceAutoencoder)
    return Reenactor(face, params)
