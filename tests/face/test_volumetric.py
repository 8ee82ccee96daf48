"""The full face model: geometry in closed form, published sizes, and a tiny one end to end."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.face.tiny_volumetric import TINY, filled
from vasa_jax.core.config import load_config
from vasa_jax.core.precision import BF16
from vasa_jax.core.tree import count, differences, flatten
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.pose import (
    BOX_CM,
    canonical_from_view,
    face_crop_points,
    placement_of_pose,
    pose_vector,
    view_from_canonical,
)
from vasa_jax.face.volume.autoencoder import (
    VolumetricAppearance,
    VolumetricAutoencoder,
    VolumetricConfig,
)
from vasa_jax.face.volume.decoder import from_canonical, to_canonical
from vasa_jax.face.volume.discriminator import Discriminator, DiscriminatorConfig
from vasa_jax.nn.warp import centres

pytestmark = pytest.mark.usefixtures("broadcasting")  # of the head's geometry

POSE = jnp.array([0.4, -0.2, 0.3, 0.1, -0.05, 0.02, 0.1])


# --- geometry -----------------------------------------------------------------------------------


def test_the_two_matrices_are_inverse_and_agree_with_the_head():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.uniform(-0.6, 0.6, size=(20, 3)), jnp.float32)
    there = move(view_from_canonical(POSE), points)
    np.testing.assert_allclose(move(canonical_from_view(POSE), there), points, atol=1e-6)
    # The same points as vertices of the head, whose projection divides by depth.
    centimetres = points * jnp.array([[BOX_CM, -BOX_CM, BOX_CM]])
    rotation = heads.rotation(POSE[0], POSE[1], POSE[2])
    placement = placement_of_pose(POSE.at[5].set(0.0))
    placed = heads.place(centimetres, rotation, placement)
    depth = 1.0 - placed[:, 2:] / heads.CAMERA_CM
    parallel = (placed[:, :2] - placement[None, :2]) * depth + placement[None, :2]
    np.testing.assert_allclose(there[:, :2], parallel, atol=1e-5)


def test_pose_stands_for_motion_and_placement_of_a_fit():
    motion = jnp.zeros(54).at[:7].set(POSE.at[5].set(0.0))
    placement = jnp.array([0.05, -0.1, 0.08])
    pose = pose_vector(motion, placement)
    np.testing.assert_allclose(pose[:3], POSE[:3])
    moved = heads.move_placement(placement, motion)
    np.testing.assert_allclose(placement_of_pose(pose), moved, atol=1e-6)


def test_the_aligned_face_is_centred_upright_and_magnified():
    flat = POSE.at[0].set(0.0).at[1].set(0.0)  # turned in the picture plane alone
    points = np.asarray(face_crop_points(flat, 9, zoom=2.0))
    corners = jnp.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])  # of the canonical cube
    want = np.asarray(move(view_from_canonical(flat), corners))[:, :2]
    edge = 8 / 9 * 0.5  # outermost cell centre, at twice the size
    np.testing.assert_allclose(points[4, 4], want[0], atol=1e-6)
    np.testing.assert_allclose(points[4, 8], want[0] + (want[1] - want[0]) * edge / 0.5, atol=1e-5)
    np.testing.assert_allclose(points[8, 4], want[0] + (want[2] - want[0]) * edge / 0.5, atol=1e-5)


def move(matrix_34, points_N3):
    """Points through an affine matrix, as linear algebra writes it."""
    return points_N3 @ matrix_34[:, :3].T + matrix_34[:, 3]


def volume_grid(*shape):
    return jnp.stack(jnp.broadcast_arrays(*centres(*shape)), -1)


def linear(points):
    """A field that trilinear sampling reproduces exactly, at points (..., 3)."""
    return points @ jnp.array([[1.0, 0.2], [-0.5, 1.0], [0.3, -0.4]]) + jnp.array([[[[0.1, 0.0]]]])


def test_two_samplings_at_one_pose_and_no_offset_are_the_identity():
    grid = volume_grid(8, 16, 16)
    volume = linear(grid)[None]
    zero = jnp.zeros((1, 8, 16, 16, 3))
    canonical = to_canonical(volume, view_from_canonical(POSE)[None], zero)
    back = from_canonical(canonical, canonical_from_view(POSE)[None], zero)
    # Where the way leads outside of either cube, the border repeats; look inside.
    inner = jnp.abs(move(canonical_from_view(POSE), grid)).max(-1) < 0.5
    inner &= jnp.abs(grid).max(-1) < 0.5
    assert int(inner.sum()) > 100
    np.testing.assert_allclose(back[0][inner], volume[0][inner], atol=1e-5)
    assert float(jnp.abs(canonical - volume).max()) > 0.1  # it did move in between


def test_offsets_are_a_second_sampling_and_not_a_sum_of_grids():
    grid = volume_grid(8, 16, 16)
    offset = jnp.broadcast_to(jnp.array([0.1, -0.05, 0.08]), (1, *grid.shape))
    there, back = view_from_canonical(0.5 * POSE), canonical_from_view(0.5 * POSE)
    canonical = to_canonical(linear(grid)[None], there[None], offset)
    inner = jnp.abs(grid).max(-1) < 0.2
    np.testing.assert_allclose(
        canonical[0][inner], linear(move(there, grid + offset[0]))[inner], atol=1e-5
    )
    summed = linear(move(there, grid) + offset[0])[inner]
    assert float(jnp.abs(canonical[0][inner] - summed).max()) > 0.01
    # Towards the driver the order is reversed: rigid looks first, the offset is found there.
    driven = from_canonical(linear(grid)[None], back[None], offset)
    np.testing.assert_allclose(
        driven[0][inner], linear(move(back, grid) + offset[0])[inner], atol=1e-5
    )


# --- published sizes ----------------------------------------------------------------------------


@functools.cache
def full_shapes(size):
    model = VolumetricAutoencoder(VolumetricConfig(size=size))
    return jax.eval_shape(model.init, jax.random.key(0))


def test_parameters_are_as_many_as_the_papers_graph_has():
    shapes = full_shapes(512)
    assert 172e6 < count(shapes) < 231e6
    # Tables of MegaPortraits' graph (paper facts 2.8), 1x1 shortcuts, in millions.
    assert count(shapes["volume"]) / 1e6 == pytest.approx(58.0, abs=1.0)
    assert count(shapes["decoder"]) / 1e6 == pytest.approx(41.0, abs=0.5)
    assert count(shapes["encoder"]) / 1e6 == pytest.approx(7.0 + 3.0, abs=0.5)
    assert not differences(shapes, full_shapes(256))  # one trains the start of the other


# --- a tiny one end to end ----------------------------------------------------------------------


@functools.cache
def tiny():
    model = VolumetricAutoencoder(TINY)
    return model, filled(jax.eval_shape(model.init, jax.random.key(0)))


def pictures(count):
    rng = np.random.default_rng(1)
    coarse = jnp.asarray(rng.uniform(-1, 1, size=(count, 8, 8, 3)), jnp.float32)
    return jax.image.resize(coarse, (count, 128, 128, 3), "linear")


@pytest.mark.slow
def test_every_parameter_moves_the_picture():
    model, params = tiny()
    image, mask = pictures(2), jnp.ones((2, 128, 128, 1))
    pose = jnp.stack([POSE, -POSE])

    def loss(params):
        z = model.dynamics(params, model.aligned_faces(image, pose))
        kept = model.encode(params, image, mask, pose, z)
        out = model.decode(params, kept, pose[::-1], z[::-1])
        return jnp.square(out - image).sum(), out

    grads, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert out.shape == (2, 128, 128, 3) and float(jnp.abs(out).max()) <= 1.0
    silent = [name for name, g in flatten(grads).items() if not np.any(g)]
    # What a norm takes away again has no gradient but for rounding: nothing else may be silent.
    assert not silent
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_no_encoder_sees_the_background():
    """Others remove it for the identity alone: then the volume learns rooms (paper facts 4.1)."""
    model = VolumetricAutoencoder(TINY)
    image = pictures(1)
    mask = jnp.zeros((1, 128, 128, 1)).at[:, 32:96, 40:88].set(1.0)

    inputs = {}

    def note(call, args, kwargs, context):
        """Keeps what the encoders are given; what they make of it is of no interest."""
        kind = type(context.module).__name__
        if kind not in ("VolumeEncoder", "IdentityEncoder") or context.method_name != "__call__":
            return call(*args, **kwargs)
        inputs[kind] = args[0]
        if len(inputs) == 2:
            raise StopIteration
        return jnp.zeros((1, 4, 4, TINY.identity_code))

    with nn.intercept_methods(note), pytest.raises(StopIteration):
        model.encode({}, image, mask, POSE[None], jnp.zeros((1, TINY.dynamics)))
    assert sorted(inputs) == ["IdentityEncoder", "VolumeEncoder"]
    for given in inputs.values():
        np.testing.assert_allclose(given, image * mask, atol=1e-6)


def test_a_matte_is_a_fourth_channel_with_weights_of_its_own():
    matted = VolumetricAutoencoder(dataclasses.replace(TINY, matte=True))
    plain, shapes = tiny()[1], jax.eval_shape(matted.init, jax.random.key(0))
    more = set(flatten(shapes)) - set(flatten(plain))
    assert {name.rsplit("/", 1)[0] for name in more} == {"decoder/matte"}
    params = filled(shapes)
    params["decoder"] = {**tiny()[1]["decoder"], "matte": params["decoder"]["matte"]}
    params = {**tiny()[1], "decoder": params["decoder"]}
    given = jax.tree.map(
        lambda a: jnp.asarray(np.random.default_rng(3).normal(size=a.shape), a.dtype),
        VolumetricAppearance(jnp.zeros((1, *TINY.volume)), jnp.zeros((1, 4, 4, 8))),
    )
    out = jax.jit(matted.decode)(params, given, POSE[None], jnp.ones((1, TINY.dynamics)))
    assert out.shape == (1, 128, 128, 4)
    assert float(out[..., 3].min()) >= 0 and float(out[..., 3].std()) > 0
    picture = jax.jit(tiny()[0].decode)(tiny()[1], given, POSE[None], jnp.ones((1, TINY.dynamics)))
    np.testing.assert_allclose(out[..., :3], picture, atol=1e-5)


@pytest.mark.slow
def test_rematerialisation_and_precision_change_no_name_and_no_output_type():
    model, params = tiny()
    for change in ({"remat": ("encoder", "warp", "volume", "decoder")}, {"precision": BF16}):
        other = VolumetricAutoencoder(dataclasses.replace(TINY, **change))
        shapes = jax.eval_shape(other.init, jax.random.key(0))
        assert not differences(jax.tree.map(lambda a: a, params), shapes)  # masters are float32
        kept = jax.eval_shape(
            other.encode, params, pictures(1), jnp.ones((1, 128, 128, 1)), POSE[None],
            jnp.zeros((1, 6)),
        )  # fmt: skip
        out = jax.eval_shape(other.decode, params, kept, POSE[None], jnp.zeros((1, 6)))
        assert out.dtype == jnp.float32
    assert kept.volume.dtype == jnp.bfloat16


def test_sizes_that_do_not_fit_are_refused():
    for bad in ({"volume": (16, 48, 64, 96)}, {"identity_size": 200}, {"remat": ("everything",)},
                {"size": 2048}, {"warp_widths": (64, 32)}):  # fmt: skip
        with pytest.raises(ValueError, match="model"):
            VolumetricConfig(**bad)


def test_the_discriminator_judges_patches_at_two_scales():
    net = Discriminator(DiscriminatorConfig(widths=(4, 8), strides=(2, 1)))
    verdict = jax.eval_shape(
        lambda: net.apply(net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))),
                          jnp.zeros((2, 32, 32, 3)))
    )  # fmt: skip
    assert [s.shape for s in verdict.scores] == [(2, 16, 16, 1), (2, 8, 8, 1)]
    assert [[f.shape[-1] for f in scale] for scale in verdict.features] == [[4, 8], [4, 8]]


@pytest.mark.parametrize("name", ["face_512", "face_256"])
def test_configurations_follow_the_published_schedule(name):
    cfg = load_config(f"configs/{name}.py")
    assert cfg.model.size == cfg.data.size == int(name[-3:])
    assert (cfg.optim.b1, cfg.optim.b2, cfg.optim.weight_decay) == (0.5, 0.999, 1e-2)
    assert cfg.optim.lr * cfg.optim.final_fraction == pytest.approx(1e-6)
    assert cfg.discriminator_optim.lr * cfg.discriminator_optim.final_fraction == pytest.approx(
        4e-6
    )
    assert (cfg.optim.steps, cfg.batch) == {"face_512": (300_000, 16), "face_256": (200_000, 24)}[
        name
    ]
