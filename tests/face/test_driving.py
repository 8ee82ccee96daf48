"""A driving motion of the lite face, read back from what it leads to."""

import numpy as np
import pytest

from tests.generate.tiny_release import FACE, tiny_head
from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.warp.autoencoder import FaceAutoencoder

pytestmark = pytest.mark.usefixtures("broadcasting")


def fit(seed, lead=()):
    rng = np.random.default_rng(seed)
    motion = np.zeros((*lead, MOTION_DIM), np.float32)
    motion[..., :3] = rng.normal(0, 0.2, (*lead, 3))
    motion[..., GAZE] = rng.normal(0, 0.2, (*lead, 2))
    motion[..., EXPRESSION] = rng.uniform(0.1, 0.5, (*lead, 45))
    placement = rng.normal([0.0, 0.0, 0.07], [0.1, 0.1, 0.005], (*lead, 3)).astype(np.float32)
    return FaceFit(np.zeros((*lead, 3)), motion, placement, np.zeros(lead))


def test_a_motion_read_from_a_fit_drives_to_that_fit():
    anchor, seen = fit(0), fit(1, (2,))
    face = FaceAutoencoder(FACE, tiny_head())
    motion = np.asarray(face.encode_motion({}, face.head, None, seen, anchor))
    for row, wanted, placement in zip(motion, seen.motion, seen.placement, strict=True):
        made = heads.drive(anchor.motion, anchor.placement, row)
        right = heads.absolute_pose(wanted, placement)
        for a, b in zip(made, right, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    own = FaceFit(*(np.asarray(x)[None] for x in anchor[:4]))
    still = np.asarray(face.encode_motion({}, face.head, None, own, anchor))[0]
    np.testing.assert_array_equal(still[:7], np.zeros(7))
