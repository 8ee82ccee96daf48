"""Rays that meet rows of teeth, against the places that geometry gives by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Pose, head_from_arrays, rotation
from vasa_jax.face.warp.teeth import LOWER_DEG, UPPER_DEG, Teeth, see, teeth_of

pytestmark = pytest.mark.usefixtures("broadcasting")

PLACEMENT = jnp.array([0.0, 0.0, 0.07])
PIXEL = 2.0 / 256


@pytest.fixture(scope="module")
def head():
    return head_from_arrays(load_release("lite").params["head"])


@pytest.fixture(scope="module")
def teeth(head) -> Teeth:
    return jax.jit(teeth_of)(head, head.base)


def posed(yaw=0.0, pitch=0.0, **expression) -> Pose:
    weights = np.zeros(len(EXPRESSION_NAMES), np.float32)
    for name, value in expression.items():
        weights[EXPRESSION_NAMES.index(name)] = value
    rot = rotation(jnp.float32(yaw), jnp.float32(pitch), jnp.float32(0))
    return Pose(rot, PLACEMENT, jnp.array(weights), jnp.zeros(2))


def seen_at(point_3, pose: Pose):
    """Place (x, y) of the crop at which a point of the head's frame is seen."""
    return heads.place(jnp.array([point_3], jnp.float32), pose.rotation, pose.placement)[0, :2]


def on_row(row, degrees: float, high: float, towards: float) -> np.ndarray:
    """A point of a row's surface, ``high`` cm from its tips, at an angle from the front."""
    turn = np.deg2rad(degrees)
    x = float(row.middle_x) + float(row.half_width) * np.sin(turn)
    z = float(row.rear_z) + float(row.depth) * np.cos(turn)
    tip = float(row.tip_y) + float(row.rise) * (1 - np.cos(turn))
    return np.array([x, tip - towards * high, z])


def test_rows_are_those_of_the_head(teeth: Teeth):
    # The head's front teeth reach z = 10.8 and y = -3.5, its molars 3.3 cm to each side.
    assert float(teeth.upper.rear_z + teeth.upper.depth) == pytest.approx(10.75, abs=0.15)
    assert float(teeth.upper.half_width) == pytest.approx(3.25, abs=0.05)
    assert float(teeth.upper.tip_y) == pytest.approx(-3.5, abs=0.1)
    assert float(teeth.lower.tip_y) == pytest.approx(-3.4, abs=0.1)
    assert 0.2 < float(teeth.upper.rise) < 0.6


@pytest.mark.parametrize("row, group", [("upper", 5), ("lower", 6)])
def test_the_heads_teeth_stand_on_the_ellipse(head, teeth, row, group):
    """The outermost vertex of every ten degrees of a row."""
    vertices = np.unique(np.asarray(head.triangles)[np.asarray(head.group) == group])
    x, _, z = np.asarray(head.base)[vertices].T
    row = getattr(teeth, row)
    x, z = (x - row.middle_x) / row.half_width, (z - row.rear_z) / row.depth
    away, turn = np.hypot(x, z), np.rad2deg(np.arctan2(x, z))
    for low in range(-80, 80, 10):
        part = (turn >= low) & (turn < low + 10)
        assert part.any() and away[part].max() == pytest.approx(1.0, abs=0.06)


def test_a_view_from_below_is_no_error(teeth):
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    for hit in see(teeth, posed(0.0, np.pi / 2), (x, y), pixel=PIXEL):
        assert all(np.isfinite(leaf).all() for leaf in hit)


@pytest.mark.parametrize("degrees", [-50.0, -20.0, 3.0, 31.0])
@pytest.mark.parametrize("yaw", [0.0, 0.25])
def test_a_point_of_the_upper_row_is_found_where_it_is_seen(teeth, degrees, yaw):
    pose = posed(yaw, 0.1)
    at = seen_at(on_row(teeth.upper, degrees, 0.4, -1.0), pose)
    upper, _ = see(teeth, pose, (at[0][None, None], at[1][None, None]), pixel=PIXEL)
    behind = float(teeth.upper.depth) * (1 - np.cos(np.deg2rad(degrees)))
    rounding = 0.09  # at most, at the corner of a tooth
    assert float(upper.behind[0, 0]) == pytest.approx(behind, abs=2e-3)
    assert 0.4 - rounding - 2e-3 <= float(upper.high[0, 0]) <= 0.4 + 2e-3
    assert float(upper.share[0, 0]) == 1.0


@pytest.mark.parametrize("edges, row", [(UPPER_DEG, "upper"), (LOWER_DEG, "lower")])
def test_edges_and_middles_of_teeth(teeth, edges, row):
    pose = posed()
    which = ("upper", "lower").index(row)
    towards = (-1.0, 1.0)[which]
    for low, high in zip(edges[:5], edges[1:6], strict=True):
        sines = np.sin(np.deg2rad([low, high]))
        middle = np.rad2deg(np.arcsin(sines.mean()))
        across = []
        for degrees in (low + 0.05, middle, high - 0.05):
            at = seen_at(on_row(getattr(teeth, row), degrees, 0.3, towards), pose)
            hits = see(teeth, pose, (at[0][None, None], at[1][None, None]), pixel=PIXEL)
            across.append(float(hits[which].across[0, 0]))
        np.testing.assert_allclose(across, [-1, 0, 1], atol=0.05)


def test_tips_end_where_they_are_and_a_pixel_on_them_is_half(teeth):
    pose = posed()
    middle = 7.0  # degrees: inside of the first tooth, whose tip is flat
    for high, share in ((-0.3, 0.0), (0.0, 0.5), (0.3, 1.0)):
        at = seen_at(on_row(teeth.upper, middle, high, -1.0), pose)
        upper, _ = see(teeth, pose, (at[0][None, None], at[1][None, None]), pixel=PIXEL)
        assert float(upper.share[0, 0]) == pytest.approx(share, abs=0.05)


def test_the_lower_row_goes_with_the_jaw_as_its_vertices_do(head, teeth):
    """A front tooth's tip is found where the head's own triangles put it, jaw wide open."""
    pose = posed(0.1, 0.0, jawOpen=0.6, jawLeft=0.2)
    moved = heads.deform(
        head, jnp.asarray(head.base), jnp.asarray(head.eye_center), pose.expression, jnp.zeros(2)
    )
    lower = np.unique(np.asarray(head.triangles)[np.asarray(head.group) == 6])
    base = np.asarray(head.base)
    front = lower[base[lower, 2] > 9.8]
    tip = front[base[front, 1].argmax()]
    at = seen_at(np.asarray(moved[tip]), pose)
    _, hit = see(teeth, pose, (at[0][None, None], at[1][None, None]), pixel=PIXEL)
    assert abs(float(hit.high[0, 0])) < 0.12
    shut = seen_at(base[tip], pose)
    assert float(at[1] - shut[1]) > 0.06  # the jaw did move: about a centimetre


def test_turned_to_the_side_teeth_face_away(teeth):
    pose = posed()
    facing = []
    for degrees in (2.0, 40.0, 70.0):
        at = seen_at(on_row(teeth.upper, degrees, 0.4, -1.0), pose)
        upper, _ = see(teeth, pose, (at[0][None, None], at[1][None, None]), pixel=PIXEL)
        facing.append(float(upper.facing[0, 0]))
    assert facing[0] > 0.99 and facing[0] > facing[1] > facing[2] > 0


def test_a_head_without_teeth_shows_none(head):
    toothless = head._replace(group=np.where(np.isin(head.group, (5, 6)), 4, head.group))
    teeth = jax.jit(teeth_of)(toothless, toothless.base)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(teeth))
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    for hit in see(teeth, posed(0.2, 0.1, jawOpen=0.5), (x, y), pixel=PIXEL):
        assert all(np.isfinite(leaf).all() for leaf in hit)
        assert not np.asarray(hit.share).any()
