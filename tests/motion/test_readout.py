import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT, SpaceConfig, space_of
from vasa_jax.motion.readout import NAMES, fit_readout, readout_of

LATENT = space_of(SpaceConfig(kind="latent", dynamics=6))


def test_of_named_weights_it_is_what_their_names_say():
    motion = np.zeros((2, MOTION_DIM), np.float32)
    motion[1, [MOTION_INDEX[n] for n in ("eyeBlink_L", "gaze_yaw")]] = 0.75, -0.2
    read = readout_of(ARKIT, {})
    np.testing.assert_allclose(read(motion), [[0] * 5, [0, 0.75, 0, -0.2, 0]], atol=1e-7)
    np.testing.assert_allclose(read.lids(motion), [[0, 0], [0.75, 0]])


def test_the_aperture_is_jaw_and_lips_less_what_closes_them():
    def aperture(**named):
        motion = np.zeros(MOTION_DIM, np.float32)
        for name, value in named.items():
            motion[MOTION_INDEX[name]] = value
        return float(readout_of(ARKIT, {}).aperture(motion))

    assert aperture(jawOpen=0.4) == pytest.approx(0.4)
    assert aperture(mouthLowerDown_L=0.4, mouthLowerDown_R=0.4) == pytest.approx(0.2)
    assert aperture(jawOpen=0.4, mouthClose=0.8) == pytest.approx(0.0)
    assert aperture(mouthPress_L=1, mouthPress_R=1) == pytest.approx(-0.25)
    assert aperture(mouthRollLower=1, mouthRollUpper=1) == pytest.approx(-0.5)


def test_a_probe_finds_the_affine_map_that_made_its_numbers():
    rng = np.random.default_rng(0)
    motion = rng.normal(2.0, [0.1] * 7 + [30.0] * 6, (4000, 13))  # units differ
    slope, bias = rng.normal(size=(13, 5)), rng.normal(size=5)
    read = fit_readout(motion, motion @ slope + bias, ridge=1e-9)
    np.testing.assert_allclose(read.matrix, slope, atol=1e-3)
    np.testing.assert_allclose(read.bias, bias, atol=1e-2)


def test_the_penalty_pulls_noise_towards_the_mean():
    rng = np.random.default_rng(1)
    motion, noise = rng.normal(size=(30, 13)), rng.normal(3.0, 1.0, (30, 5))
    loose, tight = (fit_readout(motion, noise, ridge=r) for r in (1e-6, 1e6))
    assert np.abs(tight.matrix).max() < 1e-3 < np.abs(loose.matrix).max()
    np.testing.assert_allclose(tight(motion), np.tile(noise.mean(0), (30, 1)), atol=1e-2)


def test_a_learned_space_is_read_by_the_table_that_came_with_it():
    assert readout_of(LATENT, {"motion": {}}) is None
    rng = np.random.default_rng(2)
    read = fit_readout(rng.normal(size=(50, LATENT.dim)), rng.normal(size=(50, len(NAMES))))
    again = readout_of(LATENT, {"readout": read.to_json()})
    motion = rng.normal(size=(4, LATENT.dim)).astype(np.float32)
    np.testing.assert_allclose(again(motion), read(motion), rtol=1e-6)
    with pytest.raises(UserError, match="readout is for another motion vector"):
        readout_of(space_of(SpaceConfig(kind="latent", dynamics=7)), {"readout": read.to_json()})
