"""The gap of the lips by the table, beside that of the head model it stands for."""

import functools

import jax
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM, MOTION_INDEX
from vasa_jax.face.head import head as heads
from vasa_jax.generate.engine import Engine
from vasa_jax.metrics.sync import lip_aperture
from vasa_jax.motion.arkit.emotions import weights
from vasa_jax.motion.arkit.lips import lip_gap_cm, pressed

SPEAKING = np.stack([
    weights(jawOpen=0.3, mouthLowerDown=0.2),
    weights(jawOpen=0.1, mouthFunnel=0.4, mouthPucker=0.3),
    weights(jawOpen=0.15, mouthSmile=0.6, mouthUpperUp=0.2),
])  # fmt: skip


@pytest.fixture
def aperture():
    """Gap of the inner lips over the distance of the eyes, as landmarks of the head show it."""
    head = Engine(load_release("lite")).head
    mean_head = jax.jit(jax.vmap(functools.partial(heads.mean_landmarks, head)))

    def measure(expression_TE):
        motion = np.zeros((len(expression_TE), MOTION_DIM), np.float32)
        motion[:, EXPRESSION] = expression_TE
        return lip_aperture(np.asarray(mean_head(motion)))

    return measure


@pytest.mark.usefixtures("broadcasting")
def test_pressed_lips_touch_as_those_of_a_resting_face_do(aperture):
    rest, spoken = aperture(np.zeros((1, 45)))[0], aperture(SPEAKING)
    shut = aperture(pressed(SPEAKING, np.ones(3)))
    half = aperture(pressed(SPEAKING, np.full(3, 0.5)))
    assert (spoken > rest + 0.03).all()
    np.testing.assert_allclose(shut, rest, atol=0.25 * (spoken - rest).min())
    np.testing.assert_allclose(half, 0.5 * (shut + spoken), rtol=0.15)


def test_the_share_is_that_of_the_gap_and_only_the_lips_move():
    for share in (0.0, 0.3, 1.0):
        out = pressed(SPEAKING, np.full(3, share))
        np.testing.assert_allclose(
            lip_gap_cm(out), (1 - share) * lip_gap_cm(SPEAKING), rtol=1e-5, atol=1e-6
        )
        close = MOTION_INDEX["mouthClose"] - 9
        np.testing.assert_array_equal(np.delete(out, close, 1), np.delete(SPEAKING, close, 1))
