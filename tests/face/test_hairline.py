"""Hair at a portrait's outline, against pictures where it is known what is hair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.raster import dilate
from vasa_jax.face.warp import geometry, inpaint
from vasa_jax.face.warp.hairline import hair
from vasa_jax.nn.warp import sample_at

pytestmark = pytest.mark.usefixtures("broadcasting")

SIZE = 128
SKIN, HAIR, WALL = (
    np.array([0.4, 0.1, -0.1]),
    np.array([-0.6, -0.7, -0.8]),
    np.array([0.2, 0.5, 1.0]),
)


def placed(height: float = 0.05):
    head = heads.head_from_arrays(load_release("lite").params["head"])
    head = jax.tree.map(jnp.asarray, head)
    source = geometry.place_source(
        head, jnp.zeros(head.identity.shape[0]), jnp.zeros(MOTION_DIM),
        jnp.array([0.0, height, 1 / 14.0]), size=SIZE,
    )  # fmt: skip
    return head, source


@pytest.fixture(scope="module")
def portrait():
    """Head and source, and the places (Y, X) of cheeks, temples at the outline, hair, the head."""
    head, source = placed()
    group = np.asarray(source.group)
    _, y = geometry.head_plane(heads.absolute_pose(source.motion, source.placement), SIZE)
    y = np.asarray(y)
    face = group == geometry.FACE
    temples = face & (np.asarray(source.rim) > 0) & (y > 1.0) & (y < 8.0)
    cheeks = face & ~temples & (y < 7.0)
    covered = ((group == geometry.SCALP) & (y > 1.0)) | temples
    return head, source, cheeks, temples, covered, group >= 0


def painted(shown, covered, colour=HAIR):
    picture = np.where(shown[..., None], SKIN, WALL)
    picture = np.where(covered[..., None], colour, picture)
    noise = np.random.default_rng(0).normal(0, 0.08, picture.shape)
    return jnp.asarray(picture + noise, jnp.float32)


def test_hair_over_temples_is_seen(portrait):
    _, source, cheeks, temples, covered, shown = portrait
    found = np.asarray(hair(painted(shown, covered), source))
    assert np.median(found[temples]) > 0.8
    assert found[cheeks].mean() < 0.05
    assert not found[~shown].any()


def test_a_bald_head_has_none(portrait):
    _, source, _, _, covered, shown = portrait
    found = np.asarray(hair(painted(shown, np.zeros_like(covered)), source))
    assert found.max() < 0.5 and found[shown].mean() < 0.1


def test_a_wall_inside_the_outline_is_not_hair(portrait):
    """The fit is wider than the head: at its temples the wall is seen."""
    _, source, _, temples, covered, shown = portrait
    picture = painted(shown, covered & ~temples)
    picture = jnp.where(jnp.asarray(temples)[..., None], jnp.asarray(WALL, jnp.float32), picture)
    found = np.asarray(hair(picture, source))
    assert found[temples].mean() < 0.05


def test_hair_as_pale_as_skin_is_seen_where_hair_is_beside_it(portrait):
    """Its colour does not tell; that no wall is near the outline does."""
    _, source, cheeks, temples, covered, shown = portrait
    blond = SKIN + 0.05
    around = np.asarray(dilate(jnp.asarray(covered, jnp.float32), 10)) > 0
    found = np.asarray(hair(painted(shown, covered | (around & ~shown), blond), source))
    assert np.median(found[temples]) > 0.5
    assert found[cheeks].mean() < 0.1
    before_a_wall = np.asarray(hair(painted(shown, covered, blond), source))
    assert before_a_wall[temples].mean() < 0.2


def test_a_head_without_its_top_says_nothing():
    _, source = placed(height=-1.0)
    shown = np.asarray(source.group) >= 0
    assert shown.mean() > 0.1
    noise = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (SIZE, SIZE, 3)), jnp.float32)
    assert not np.asarray(hair(noise, source)).any()


def test_a_head_that_turns_keeps_its_hair(portrait):
    head, source, _, temples, covered, shown = portrait
    picture = painted(shown, covered)
    layers = inpaint.portrait_layers(picture, source.opening)
    pose = heads.drive(source.motion, source.placement, jnp.zeros(MOTION_DIM).at[0].set(0.25))

    def kept(rim):
        """The share of hair among what was hair at the temples and is still seen."""
        driven = geometry.drive_geometry(head, source._replace(rim=rim), pose, size=SIZE)
        from_temple = sample_at(jnp.asarray(temples, jnp.float32)[..., None], *driven.flow)[..., 0]
        there = np.asarray(driven.maps.face * driven.maps.visible * from_temple) > 0.9
        assert there.sum() > 50
        made = np.asarray(inpaint.warp_layers(layers, driven))[..., :3]
        return (np.abs(made - HAIR).max(-1) < 0.5)[there].mean()

    without = kept(source.rim)
    assert kept(source.rim * (1.0 - hair(picture, source))) > without + 0.3
