"""Detail beyond the model's square: nothing moves, a shift, nothing shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vasa_jax.checkpoint.release import load_release
from vasa_jax.face.find import align
from vasa_jax.face.find.align import Crop
from vasa_jax.face.head.head import Pose, head_from_arrays
from vasa_jax.face.model import from_uint8, to_uint8
from vasa_jax.face.warp import detail
from vasa_jax.face.warp.mouth import Mouth, Opening
from vasa_jax.face.warp.teeth import teeth_of
from vasa_jax.nn.warp import image_grid

pytestmark = pytest.mark.usefixtures("broadcasting")
SIZE = 32
CROP = Crop(60.0, 50.0, 64.0)  # two pixels of the picture to one of the square


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).uniform(0, 255, (100, 120, 3))
    return np.asarray(Image.fromarray(noise.astype(np.uint8)).resize((120, 100), 2, (0, 0, 60, 50)))


def enlarge(picture, shift=(0, 0), share=1.0):
    """The crop as the model would move it by whole pixels of its square, then enlarged."""
    small = np.roll(align.extract(picture, CROP, SIZE), shift[::-1], (0, 1))
    flow = image_grid(SIZE, SIZE) - jnp.asarray(shift, jnp.float32) * 2.0 / SIZE
    nothing = jnp.zeros((1, 8, 8))
    shut = Opening(nothing, nothing, jnp.zeros((1, 2), jnp.int32))
    pose = Pose(
        jnp.eye(3)[None], jnp.array([[0.0, 0.0, 0.07]]), jnp.zeros((1, 45)), jnp.zeros((1, 2))
    )  # fmt: skip
    origin = detail.Origin(flow[None], jnp.full((1, SIZE, SIZE), share), shut, pose)
    residual = detail.portrait_detail(picture, CROP, SIZE)
    head = head_from_arrays(load_release("lite").params["head"])
    mouth = Mouth(teeth_of(head, jnp.asarray(head.base)), jnp.zeros(3), jnp.zeros(3))
    out = jax.jit(detail.enlarged)(from_uint8(small)[None], residual, mouth, origin)
    return np.asarray(to_uint8(out))[0].astype(int)


def test_a_head_at_rest_is_the_portrait_itself(picture):
    whole = align.extract(picture, CROP, 2 * SIZE).astype(int)
    assert np.abs(enlarge(picture) - whole)[4:-4, 4:-4].max() <= 3  # bicubic overshoot is cut
    plain = enlarge(picture, share=0.0)
    assert np.abs(plain - whole).mean() > 5  # which enlarging alone is not


def test_detail_goes_where_the_head_goes(picture):
    whole = align.extract(picture, CROP, 2 * SIZE).astype(int)
    moved = enlarge(picture, shift=(3, -2))
    want = np.roll(whole, (-4, 6), (0, 1))
    assert np.abs(moved - want)[12:-12, 12:-12].max() <= 3


def test_what_is_painted_is_only_enlarged(picture):
    small = Image.fromarray(align.extract(picture, CROP, SIZE))
    want = np.asarray(small.resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(enlarge(picture, share=0.0) - want)[4:-4, 4:-4].max() <= 1


def test_a_small_head_has_none(picture):
    assert detail.portrait_detail(picture, Crop(60.0, 50.0, 1.1 * SIZE), SIZE) is None


def test_a_finer_square_is_pasted_where_the_coarse_one_was(picture):
    paster = align.Paster(picture, CROP, SIZE)
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    errors = [
        np.abs(paster.paste(align.extract(picture, CROP, n), mask).astype(int) - picture).mean()
        for n in (SIZE, 2 * SIZE)
    ]
    assert errors[1] < 0.2 and errors[0] > 1.0
