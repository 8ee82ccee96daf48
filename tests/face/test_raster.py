"""The rasteriser against a brute-force one."""

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.face.head import raster

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


@pytest.mark.parametrize(
    ("count", "side"), [(60, 0.24), (2000, 0.1), (16, 0.44)], ids=["few", "many", "large"]
)
def test_nearest_front_triangle_wins_everywhere(count, side):
    # Large ones do not fit the usual windows: the largest is 9 px at this size, 0.28 of [-1, 1].
    rng = np.random.default_rng(0)
    center = rng.uniform(-0.7, 0.7, size=(count, 1, 2))
    corner = center + rng.uniform(-side / 2, side / 2, size=(count, 3, 2))
    placed = np.concatenate([corner, rng.uniform(-15, 15, size=(count, 3, 1))], -1).reshape(-1, 3)
    triangles = np.arange(3 * count).reshape(count, 3).astype(np.int32)
    size = 64
    found = raster.rasterise(jnp.asarray(placed, jnp.float32), jnp.asarray(triangles), size=size)
    expected = brute_force(placed, triangles, size)
    hit = np.isfinite(expected)
    agree = (np.asarray(found.triangle_YX) >= 0) == hit
    assert agree.mean() > 0.998  # float32 on edges
    both = hit & (np.asarray(found.triangle_YX) >= 0)
    error = np.abs(np.asarray(found.depth_YX)[both] - expected[both])
    assert np.quantile(error, 0.99) < 0.01  # cm; depth is quantised to 40 cm / 65535
