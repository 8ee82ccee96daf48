"""Paint where a portrait shows nothing, against pictures whose colours are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.face import geometry, inpaint, raster
from vasa_jax.face import head as heads
from vasa_jax.nn.warp import sample_image

pytestmark = pytest.mark.usefixtures("broadcasting")

SIZE = 128
FACE = geometry.MAP_NAMES.index("face")
SKIN, WALL = np.array([0.4, 0.1, -0.2]), np.array([-0.9, 0.9, 0.7])


def test_inpainting_leaves_the_picture_and_fills_the_hole_smoothly():
    y, x = np.mgrid[:64, :64] / 64.0
    image = np.stack([x, y, x + y], -1).astype(np.float32)
    hole = np.zeros((64, 64), np.float32)
    hole[24:32, 30:44] = 1
    broken = np.where(hole[..., None] > 0, 9.0, image).astype(np.float32)
    filled = np.asarray(inpaint.inpaint(jnp.asarray(broken), jnp.asarray(hole)))
    np.testing.assert_allclose(filled[hole == 0], image[hole == 0], atol=1e-5)
    assert np.abs(filled - image)[hole > 0].max() < 0.12  # a ramp stays a ramp, roughly


def test_cells_spread_linearly_between_their_centres():
    cells = np.random.default_rng(0).normal(size=(8, 6, 3)).astype(np.float32)
    got = inpaint._spread(inpaint._spread(jnp.asarray(cells), 0), 1)
    four = inpaint.COARSE
    expected = jax.image.resize(cells, (8 * four, 6 * four, 3), "linear")
    np.testing.assert_allclose(got, expected, atol=1e-6)


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
    portrait = np.where(np.asarray(shown)[..., None], SKIN, WALL)
    layers = jnp.asarray(np.concatenate([portrait, portrait], -1), jnp.float32)
    motion = jnp.zeros(54).at[0].set(0.45)
    pose = heads.drive(source.motion, source.placement, motion)
    return layers, geometry.drive_geometry(head, source, pose, size=SIZE)


def test_a_turned_head_of_one_colour_stays_of_that_colour(turned):
    layers, geometry = turned
    face = np.asarray(geometry.maps[..., FACE]) > 0
    wrong = {}
    for name, picture in (
        ("flow alone", sample_image(layers, geometry.flow)),
        ("painted", inpaint.warp_layers(layers, geometry)),
    ):
        wrong[name] = (np.abs(np.asarray(picture)[..., :3] - SKIN).max(-1) > 0.1)[face].mean()
    assert wrong["flow alone"] > 0.01  # of the wall, along the far cheek
    assert wrong["painted"] < 0.4 * wrong["flow alone"]


def test_what_the_portrait_shows_is_not_painted_over(turned):
    layers, geometry = turned
    noise = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, layers.shape), jnp.float32)
    painted = inpaint.warp_layers(noise, geometry)
    before = np.asarray(geometry.maps)
    face = before[..., FACE] > 0
    visible, stretch = before[..., -2] > 0, before[..., -1]
    kept = ~face | (visible & (stretch < inpaint.STRETCH[0]))
    moved = sample_image(noise, geometry.flow)
    np.testing.assert_allclose(np.asarray(painted)[kept], np.asarray(moved)[kept], atol=1e-6)
    assert 0.02 < (~kept)[face].mean() < 0.5
