"""The rasteriser against a brute-force one, and the flow it gives against known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face import head as heads
from vasa_jax.face import raster
from vasa_jax.nn.warp import image_grid

pytestmark = pytest.mark.usefixtures("broadcasting")


def brute_force(placed, triangles, size):
    """Depth of the nearest front-facing triangle at every pixel centre, in float64 numpy."""
    depth = np.full((size, size), -np.inf)
    centers = (np.arange(size) + 0.5) * 2 / size - 1
    xx, yy = np.meshgrid(centers, centers)
    for t in triangles:
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = placed[t].astype(np.float64)
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area >= 0:  # y points down: the front has negative area
            continue
        e1 = ((xx - ax) * (cy - ay) - (cx - ax) * (yy - ay)) / area
        e2 = ((bx - ax) * (yy - ay) - (xx - ax) * (by - ay)) / area
        inside = (e1 >= 0) & (e2 >= 0) & (e1 + e2 <= 1)
        z = az + e1 * (bz - az) + e2 * (cz - az)
        depth = np.where(inside & (z > depth), z, depth)
    return depth


def test_nearest_front_triangle_wins_everywhere():
    rng = np.random.default_rng(0)
    center = rng.uniform(-0.7, 0.7, size=(60, 1, 2))
    corner = center + rng.uniform(-0.12, 0.12, size=(60, 3, 2))
    placed = np.concatenate([corner, rng.uniform(-15, 15, size=(60, 3, 1))], -1).reshape(-1, 3)
    triangles = np.arange(180).reshape(60, 3).astype(np.int32)
    size = 64
    # Windows are given at 256 px: these triangles are at most 0.24 of [-1, 1] = 8 px of 64.
    found = raster.rasterise(
        jnp.asarray(placed, jnp.float32), jnp.asarray(triangles), size=size, classes=(0, 0, 60)
    )
    expected = brute_force(placed, triangles, size)
    hit = np.isfinite(expected)
    agree = (np.asarray(found.triangle_YX) >= 0) == hit
    assert agree.mean() > 0.998  # float32 on edges
    both = hit & (np.asarray(found.triangle_YX) >= 0)
    error = np.abs(np.asarray(found.depth_YX)[both] - expected[both])
    assert np.quantile(error, 0.99) < 0.01  # cm; depth is quantised to 40 cm / 65535


@pytest.fixture(scope="module")
def lite_head():
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


def source_of(head, size):
    motion = jnp.zeros(54)
    placement = jnp.array([0.0, 0.05, 1 / 14.0])
    classes = heads.size_classes(head)
    identity = jnp.zeros(head.identity.shape[0])
    head = jax.tree.map(jnp.asarray, head)
    source = raster.place_source(head, identity, motion, placement, size=size, classes=classes)
    return head, source, classes


def test_a_head_that_does_not_move_has_no_flow(lite_head):
    head, source, classes = source_of(lite_head, 128)
    pose = heads.absolute_pose(source.motion, source.placement)
    g = raster.drive_geometry(head, source, pose, size=128, classes=classes)
    still = np.abs(np.asarray(g.flow) - np.asarray(image_grid(128, 128))).max(-1)
    assert still.max() < 0.01
    cover, visible = np.asarray(g.maps)[..., 9], np.asarray(g.maps)[..., 10]
    assert visible[cover > 0].mean() > 0.97


def test_a_pure_shift_of_the_head_is_that_shift(lite_head):
    head, source, classes = source_of(lite_head, 128)
    motion = np.zeros(54, np.float32)
    motion[3] = 0.05  # head widths to the right
    pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
    g = raster.drive_geometry(head, source, pose, size=128, classes=classes)
    moved = np.asarray(image_grid(128, 128)) - np.asarray(g.flow)
    face = np.asarray(g.maps)[..., 6] > 0
    inner = np.zeros_like(face)
    inner[40:80, 48:80] = True  # away from the neck, which stays
    shift = moved[face & inner].mean(0)
    np.testing.assert_allclose(shift, [0.05 * 14.0 / 14.0, 0.0], atol=2e-3)


def test_the_border_of_the_crop_never_moves(lite_head):
    head, source, classes = source_of(lite_head, 128)
    motion = np.zeros(54, np.float32)
    motion[:3] = [0.3, 0.1, 0.15]
    pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
    g = raster.drive_geometry(head, source, pose, size=128, classes=classes)
    gap = np.abs(np.asarray(g.flow) - np.asarray(image_grid(128, 128))).max(-1)
    border = np.ones((128, 128), bool)
    border[1:-1, 1:-1] = False
    assert gap[border].max() < 1e-3


def test_opening_the_jaw_shows_the_mouth_and_blinking_hides_the_eyes(lite_head):
    from vasa_jax.core.types import MOTION_INDEX

    head, source, classes = source_of(lite_head, 128)

    def area(name, **weights):
        motion = np.zeros(54, np.float32)
        for key, value in weights.items():
            motion[MOTION_INDEX[key]] = value
        pose = heads.drive(source.motion, source.placement, jnp.asarray(motion))
        g = raster.drive_geometry(head, source, pose, size=128, classes=classes)
        return float(np.asarray(g.maps)[..., raster.MAP_NAMES.index(name)].sum())

    wide = area("mouth_interior", jawOpen=0.5)
    assert wide > 60
    assert area("mouth_interior") < 0.2 * wide  # the line between resting lips
    opened = area("eyeball")
    assert area("eyeball", eyeBlink_L=1.0, eyeBlink_R=1.0) < 0.15 * opened
