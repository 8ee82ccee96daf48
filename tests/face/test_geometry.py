"""Flow and maps of a driven head against known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.head import head as heads
from vasa_jax.face.head.raster import dilate
from vasa_jax.face.warp import geometry
from vasa_jax.nn.warp import image_grid, sample_at

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def lite_head():
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


SIZE = 128


def points(flow):
    """(Y, X, 2)"""
    return np.stack(flow, -1)


def source_of(head, size, own=0.0):
    """A portrait that looks ``own`` rad to the side."""
    motion = jnp.zeros(54).at[0].set(own)
    placement = jnp.array([0.0, 0.05, 1 / 14.0])
    identity = jnp.zeros(head.identity.shape[0])
    head = jax.tree.map(jnp.asarray, head)
    source = geometry.place_source(head, identity, motion, placement, size=size)
    return head, source


def test_a_head_that_does_not_move_has_no_flow(lite_head):
    head, source = source_of(lite_head, 128)
    pose = heads.absolute_pose(source.motion, source.placement)
    g = geometry.drive_geometry(head, source, pose, size=128)
    still = np.abs(points(g.flow) - np.asarray(image_grid(128, 128))).max(-1)
    assert still.max() < 0.01
    cover, visible = np.asarray(g.maps.cover), np.asarray(g.maps.visible)
    assert visible[cover > 0].mean() > 0.97


def test_a_pure_shift_of_the_head_is_that_shift(lite_head):
    head, source = source_of(lite_head, 128)
    motion = np.zeros(54, np.float32)
    motion[3] = 0.05  # head widths to the right
    pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
    g = geometry.drive_geometry(head, source, pose, size=128)
    moved = np.asarray(image_grid(128, 128)) - points(g.flow)
    face = np.asarray(g.maps.face) > 0
    inner = np.zeros_like(face)
    inner[40:80, 48:80] = True  # away from the neck, which stays
    shift = moved[face & inner].mean(0)
    np.testing.assert_allclose(shift, [0.05 * 14.0 / 14.0, 0.0], atol=2e-3)


def test_the_border_of_the_crop_never_moves(lite_head):
    head, source = source_of(lite_head, 128)
    motion = np.zeros(54, np.float32)
    motion[:3] = [0.3, 0.1, 0.15]
    pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
    g = geometry.drive_geometry(head, source, pose, size=128)
    gap = np.abs(points(g.flow) - np.asarray(image_grid(128, 128))).max(-1)
    border = np.ones((128, 128), bool)
    border[1:-1, 1:-1] = False
    assert gap[border].max() < 1e-3


def test_opening_the_jaw_shows_the_mouth_and_blinking_hides_the_eyes(lite_head):
    from vasa_jax.core.arkit import MOTION_INDEX

    head, source = source_of(lite_head, 128)

    def area(name, **weights):
        motion = np.zeros(54, np.float32)
        for key, value in weights.items():
            motion[MOTION_INDEX[key]] = value
        pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
        g = geometry.drive_geometry(head, source, pose, size=128)
        return float(np.asarray(getattr(g.maps, name)).sum())

    wide = area("mouth_interior", jawOpen=0.5)
    assert wide > 60
    assert area("mouth_interior") < 0.2 * wide  # the line between resting lips
    opened = area("eyeball")
    assert area("eyeball", eyeBlink_L=1.0, eyeBlink_R=1.0) < 0.15 * opened


def turned(lite_head, own, yaw):
    """A portrait that looks ``own`` rad to the side, and its head turned by ``yaw``."""
    head, source = source_of(lite_head, SIZE, own)
    pose = heads.drive(source.motion, source.placement, jnp.zeros(54).at[0].set(yaw))
    return head, source, pose, geometry.drive_geometry(head, source, pose, size=SIZE)


def test_a_head_that_turns_uncovers_no_second_cheek(lite_head):
    """Beside the new outline lies what lay beside the old one, not a part of the face."""
    head, source, pose, g = turned(lite_head, -0.5, 0.25)  # the left cheek comes in sight
    cover = np.asarray(g.maps.cover) > 0
    was_head = turned(lite_head, -0.5, 0.0)[-1].maps.cover[..., None]
    cheek = np.zeros_like(cover)
    cheek[30:100, :64] = True  # above the neck, left of the middle

    def ghost(flow):
        shows = np.asarray(sample_at(was_head, *flow))[..., 0] > 0.5
        return (~cover & shows & cheek).sum()

    placed = heads.place_head(head, source.neutral, source.eye_centers, pose)
    with_skull = geometry._background(geometry._skull_motion(head, source, placed), pose, SIZE)
    assert ghost(with_skull) > 40
    assert ghost(g.flow) < 0.1 * ghost(with_skull)


def test_far_from_the_head_nothing_is_carried_on(lite_head):
    head, source, pose, g = turned(lite_head, 0.0, 0.3)
    placed = heads.place_head(head, source.neutral, source.eye_centers, pose)
    alone = geometry._background(geometry._skull_motion(head, source, placed), pose, SIZE)
    cover = g.maps.cover
    far = np.asarray(dilate(cover, geometry.REACH_PX * SIZE // 256 + 12)) == 0
    assert far.sum() > 50
    np.testing.assert_allclose(points(g.flow)[far], points(alone)[far], atol=1e-5)


def test_the_rim_lies_inside_outlines_and_not_around_mouth_and_eyes(lite_head):
    _, source, _, g = turned(lite_head, 0.0, 0.0)
    rim = np.asarray(source.rim)
    hit = np.asarray(g.maps.cover) > 0
    # Each number is the largest of four pixels.
    assert not rim[np.asarray(dilate(jnp.asarray(hit, jnp.float32), 1)) == 0].any()
    inside = np.asarray(dilate(jnp.asarray(~hit, jnp.float32), 1)) == 0
    edge = hit & ~inside
    edge[[0, -1]] = False  # where the picture ends, the head does not
    assert rim[edge].min() == 1.0
    middle = np.zeros_like(hit)
    middle[40:91, 44:83] = True  # eyes, nose and mouth of a face that looks at the camera
    assert rim[middle].max() == 0.0
