"""Paint where a portrait shows nothing, against pictures whose colours are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.face.head import head as heads
from vasa_jax.face.head import raster
from vasa_jax.face.warp import geometry, inpaint
from vasa_jax.nn.warp import sample_at

pytestmark = pytest.mark.usefixtures("broadcasting")

SIZE = 128
SKIN, WALL = np.array([0.4, 0.1, -0.2]), np.array([-0.9, 0.9, 0.7])


@pytest.fixture(scope="module")
def turned():
    """A head of one colour before a wall of another, 0.45 rad to the side."""
    head = heads.head_from_arrays(load_release("lite").params["head"])
    head = jax.tree.map(jnp.asarray, head)
    source = geometry.place_source(
        head, jnp.zeros(head.identity.shape[0]), jnp.zeros(54), jnp.array([0.0, 0.05, 1 / 14.0]),
        size=SIZE,
    )  # fmt: skip
    shown = raster.rasterise(source.placed, head.triangles, size=SIZE).triangle_YX >= 0
    portrait = jnp.asarray(np.where(np.asarray(shown)[..., None], SKIN, WALL), jnp.float32)
    layers = jnp.concatenate([portrait, portrait], -1)
    motion = jnp.zeros(54).at[0].set(0.45)
    pose = heads.drive(source.motion, source.placement, motion)
    return layers, source, lambda source: geometry.drive_geometry(head, source, pose, size=SIZE)


def test_a_turned_head_of_one_colour_stays_of_that_colour(turned):
    layers, source, drive = turned
    geometry = drive(source)
    # Without the outermost pixels, which belong to head and wall.
    face = np.asarray(raster.dilate(1.0 - geometry.maps.face, 1)) == 0
    wrong = {}
    for name, picture in (
        ("flow alone", sample_at(layers, *geometry.flow)),
        ("painted", inpaint.warp_layers(layers, geometry)),
    ):
        wrong[name] = (np.abs(np.asarray(picture)[..., :3] - SKIN).max(-1) > 0.1)[face].mean()
    assert wrong["flow alone"] > 0.01  # of the wall, along the far cheek
    assert wrong["painted"] < 0.35 * wrong["flow alone"]


def test_what_the_portrait_shows_is_not_painted_over(turned):
    _, source, drive = turned
    driven = drive(source)
    noise = np.random.default_rng(1).uniform(-1, 1, (SIZE, SIZE, 6))
    noise = jnp.asarray(noise, jnp.float32)
    painted = inpaint.warp_layers(noise, driven)
    face, visible, stretch = (
        np.asarray(m) for m in (driven.maps.face, driven.maps.visible, driven.maps.stretch)
    )
    face, visible = face > 0, visible > 0
    moved = np.asarray(sample_at(noise, *driven.flow))
    # At a rim from the first stretch on, elsewhere later; a pixel around its place in the portrait.
    rim = sample_at(raster.dilate(source.rim, 1)[..., None], *driven.flow)[..., 0]
    limit = np.where(np.asarray(rim) > 0, geometry.STRETCH_AT_RIM[0], geometry.STRETCH[0])
    known = np.asarray(driven.known)
    np.testing.assert_array_equal(known[face & visible & (stretch < limit)], 1.0)
    assert not known[~(face & visible) | (stretch > geometry.STRETCH[1])].any()
    unknown, throat = np.asarray(driven.unknown) > 0, np.asarray(driven.throat) > 0
    assert not (unknown & (known == 1)).any() and not (throat & visible).any()
    painted_over = unknown | throat
    beside = np.asarray(raster.dilate(jnp.asarray(painted_over, jnp.float32), 1)) > 0
    kept = ~beside  # edges of paint are a pixel wide
    np.testing.assert_allclose(np.asarray(painted)[kept], moved[kept], atol=1e-6)
    assert 0.02 < painted_over[face].mean() < 0.5


def test_a_fit_that_is_too_wide_leaves_no_wall_on_the_cheek(turned):
    """The portrait's face ends two pixels inside of where the fit says."""
    layers, source, drive = turned
    wall = np.abs(np.asarray(layers[..., :3]) - WALL).max(-1) < 0.1
    grown = np.asarray(raster.dilate(jnp.asarray(wall, jnp.float32), 2)) > 0
    portrait = jnp.asarray(np.where(grown[..., None], WALL, SKIN), jnp.float32)
    layers = jnp.concatenate([portrait, portrait], -1)
    driven = drive(source)
    picture = np.asarray(inpaint.warp_layers(layers, driven))[..., :3]
    # The far cheek is on the left, where the head turns away from; the jaw ends under row 85.
    normal_x = np.asarray(driven.maps.normal_x)
    face = (np.asarray(driven.maps.face) > 0) & (normal_x < -0.2)
    face[85:] = False
    without = drive(source._replace(rim=jnp.zeros_like(source.rim)))
    bare = np.asarray(inpaint.warp_layers(layers, without))[..., :3]

    def wrong(image):
        return (np.abs(image - SKIN).max(-1) > 0.3)[face].mean()

    assert wrong(bare) > 0.02
    assert wrong(picture) < 0.35 * wrong(bare)


def test_a_neck_that_is_thinner_than_the_fits_gets_no_skin_beside_it(turned):
    """The portrait shows the wall in the outer part of where the fit has its neck."""
    layers, source, drive = turned
    driven = drive(source)
    below = np.arange(SIZE)[:, None] > 92  # of the jaw's corners
    beside = below & (np.abs(np.arange(SIZE) - SIZE / 2) > 17)
    portrait = np.where(beside[..., None], WALL, np.asarray(layers[..., :3]))
    layers = jnp.asarray(np.concatenate([portrait, portrait], -1), jnp.float32)
    picture = np.asarray(inpaint.warp_layers(layers, driven))[..., :3]
    uncovered = (np.asarray(driven.throat) > 0) & beside
    uncovered &= np.arange(SIZE) < SIZE / 2 - 21  # edges are a cell wide
    assert uncovered.sum() > 20
    np.testing.assert_allclose(np.median(picture[uncovered], 0), WALL, atol=0.15)
    as_cheek = driven._replace(
        unknown=jnp.maximum(driven.unknown, driven.throat), throat=jnp.zeros_like(driven.throat)
    )
    picture = np.asarray(inpaint.warp_layers(layers, as_cheek))[..., :3]
    assert np.abs(np.median(picture[uncovered], 0) - WALL).max() > 0.5
