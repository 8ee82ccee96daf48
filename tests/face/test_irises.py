"""Blank eyes are told from eyes with irises, and stay blank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.raster import dilate
from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig
from vasa_jax.face.warp.geometry import NUM_MAPS, Maps
from vasa_jax.face.warp.irises import FEWEST_PX, irises

pytestmark = pytest.mark.usefixtures("broadcasting")
N = 256


def eye(radius=8, white=12):
    """Maps of one eye in the middle."""
    y, x = np.mgrid[:N, :N] - N / 2
    away = np.hypot(x, y)
    none = np.zeros((N, N), np.float32)
    maps = Maps(*[none] * NUM_MAPS)._replace(
        eyeball=np.float32(away < white), iris=np.float32(away < radius)
    )
    return jax.tree.map(jnp.asarray, maps)


def picture(maps, white, iris):
    light = white + (iris - white) * maps.iris
    return jnp.broadcast_to(light[..., None], (N, N, 3)) * 2 - 1


def test_darker_middles_are_irises_and_equal_or_lighter_ones_are_none():
    maps = eye()
    assert irises(picture(maps, 0.6, 0.2), maps) == 1.0
    assert irises(picture(maps, 0.12, 0.10), maps) == 1.0  # in the dark it is the share that counts
    assert irises(picture(maps, 0.5, 0.5), maps) == 0.0
    assert irises(picture(maps, 0.5, 0.6), maps) == 0.0
    assert 0.0 < irises(picture(maps, 0.5, 0.47), maps) < 1.0


def test_of_shut_eyes_nothing_is_known():
    for maps in (eye(radius=1), eye(radius=0, white=0)):
        assert maps.iris.sum() < FEWEST_PX
        assert irises(picture(maps, 0.5, 0.6), maps) == 1.0


def test_a_blank_eye_is_left_to_the_portrait_and_nothing_else_is():
    release = load_release("lite")
    model = FaceAutoencoder(FaceConfig(), heads.head_from_arrays(release.params["head"]))
    params = release.params["face"]
    identity = jnp.zeros(model.head.identity.shape[0])
    own, placement = jnp.zeros(54), jnp.array([0.0, 0.05, 0.071])
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (N, N, 3)), jnp.float32)

    @jax.jit
    def run(params, head, image):
        appearance = model.encode(params, head, image, identity, own, placement)
        pose = jax.tree.map(lambda a: a[None], heads.absolute_pose(own, placement))
        moved, maps, *_ = model.warp_pose(head, appearance, pose)
        pictures = [
            model.render_pose(params, head, appearance._replace(irises=share), pose)[0]
            for share in (jnp.float32(0.0), jnp.float32(1.0))
        ]
        return moved[0, ..., :3], maps.eyeball[0], *pictures

    moved, eyeball, blank, seen = map(np.asarray, run(params, model.head, image))
    changed = np.abs(blank - seen).max(-1) > 1e-5
    beside = np.asarray(dilate(jnp.asarray(eyeball), 1)) > 0  # contours are softened
    assert changed[eyeball > 0].mean() > 0.9
    assert not changed[~beside].any()
    inside = np.asarray(dilate(jnp.asarray(1.0 - eyeball), 2)) == 0
    assert inside.sum() > 20
    np.testing.assert_allclose(blank[inside], moved[inside], atol=1e-5)
