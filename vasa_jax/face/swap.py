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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM
from vasa_jax.core.types import POSE, Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import FaceFit, fit_portrait
from vasa_jax.face.model import from_uint8, to_uint8
from vasa_jax.face.warp.autoencoder import Appearance, FaceAutoencoder

ENDS = (10, 152)  # landmarks at the top of the forehead and at the chin


class Source(NamedTuple):
    """A portrait that has been encoded, and how its face was read."""

    fit: FaceFit
    appearance: Appearance


class Reenactor:
    """Stage 1 of a release with its compiled functions. Squares are uint8 of side ``size``."""

    def __init__(self, model: FaceAutoencoder, params: Any):
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

        def points(head: Any, identity_I, motion_54, placement_3):
            neutral, centers = heads.person(head, identity_I)
            pose = heads.absolute_pose(motion_54, placement_3)
            return heads.landmarks(head, heads.place_head(head, neutral, centers, pose))

        self._code, self._picture = jax.jit(code), jax.jit(picture)
        self._warp, self._points = jax.jit(warp), jax.jit(points)

    @property
    def size(self) -> int:
        """Side of the square in px."""
        return self.model.cfg.size

    def fit(self, landmarks_px: np.ndarray) -> FaceFit:
        """How the lite model's ``E_pose`` and ``E_dyn`` read landmarks (478, 3) of the square."""
        return fit_portrait(self.model.head, np.asarray(landmarks_px) / np.float32(self.size))

    def swap(
        self, source: FaceFit, pose: FaceFit, dynamics: FaceFit
    ) -> tuple[np.ndarray, np.ndarray]:
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
            self._points(self.model.head, jnp.asarray(fit.identity), level, unit)[:, 1], np.float64
        )
        return float(y[list(ENDS)].mean()), float(y[ENDS[1]] - y[ENDS[0]])

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

    def landmarks(self, fit: FaceFit) -> np.ndarray:
        """Landmarks (478, 3) px of a face of known parameters; z away from the viewer."""
        p = self._points(
            self.model.head, jnp.asarray(fit.identity), jnp.asarray(fit.motion, jnp.float32),
            jnp.asarray(fit.placement, jnp.float32),
        )  # fmt: skip
        points, half = np.array(p), self.size / 2
        points[:, :2] = (points[:, :2] + 1) * half
        points[:, 2] *= -float(fit.placement[2]) * half  # cm towards the viewer -> px away
        return points
