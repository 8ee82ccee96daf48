"""Where the line of the lashes is drawn, and when."""

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_INDEX
from vasa_jax.data.faces import example_head
from vasa_jax.face.head import head as heads
from vasa_jax.face.warp import lashes

pytestmark = pytest.mark.usefixtures("broadcasting")
SIZE = 192
PLACEMENT = jnp.array([0.0, 0.0, 1 / 14.0])


@pytest.fixture(scope="module")
def head():
    return example_head()


def line(head, left, right):
    m = np.zeros(54, np.float32)
    m[MOTION_INDEX["eyeBlink_L"]], m[MOTION_INDEX["eyeBlink_R"]] = left, right
    placed = heads.place_fit(head, jnp.zeros(50), jnp.asarray(m), PLACEMENT)
    blink = jnp.array([left, right])
    drawn = lashes.lash_line(head, placed, blink, PLACEMENT[2], size=SIZE)
    points = (np.asarray(heads.landmarks(head, placed))[:, :2] + 1) / 2 * SIZE
    return np.asarray(drawn), points


def test_open_eyes_have_no_line_and_shut_ones_a_dark_one(head):
    assert line(head, 0.0, 0.3)[0].max() == 0
    drawn, _ = line(head, 1.0, 1.0)
    assert lashes.DARKNESS * 0.8 < drawn.max() <= lashes.DARKNESS
    assert drawn.max() > line(head, 0.7, 0.7)[0].max() > 0


def test_the_line_runs_between_the_lids_from_corner_to_corner_of_the_shut_eye_alone(head):
    drawn, points = line(head, 1.0, 0.0)  # the person's left eye is right in the picture
    ys, xs = np.nonzero(drawn > 0.3)
    outer, inner = points[263], points[362]
    assert inner[0] - 1 < xs.min() and xs.max() < outer[0] + 1
    assert xs.max() - xs.min() > 0.7 * (outer[0] - inner[0])
    seam = (points[386] + points[374]) / 2  # middle of the upper and of the lower lid
    at = ys[np.abs(xs + 0.5 - seam[0]) < 2].mean() + 0.5
    assert abs(at - seam[1]) < 1.0


def test_light_is_swallowed_where_the_line_is():
    picture = jnp.asarray([[[[-1.0], [0.0], [1.0]]]])
    got = lashes.draw(picture, jnp.full((1, 1, 3), 0.5))
    np.testing.assert_allclose(np.asarray(got).ravel(), [-1.0, -0.5, 0.0])
    np.testing.assert_array_equal(lashes.draw(picture, jnp.zeros((1, 1, 3))), picture)
