"""The PyTorch twin of the lite stage 1 against ours, stage by stage and as a whole.

Every stage gets our inputs, so that a pixel on the edge of a triangle, which either side may give
to its neighbour, is counted once: in the raster's own test.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.face.head import head as heads
from vasa_jax.face.model import to_uint8
from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig
from vasa_jax.face.warp.decoder import WarpGenerator
from vasa_jax.nn.warp import sample_image, sample_volumes

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("broadcasting")]

from tools.torch_ref import hairline, inpaint, lite_face, raster, sampling, weights  # noqa: E402
from tools.torch_ref import head as twin_head  # noqa: E402  # after the skip

CFG = FaceConfig(
    size=64, volume=(4, 8, 8, 4), encoder_width=8, code=8, warp_width=4,
    decoder_widths=(4, 8, 8), margin=8,
)  # fmt: skip
PLACEMENT = np.array([0.02, -0.05, 0.075], np.float32)
ATOL = 3e-5  # float32, values of about one


def back(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).detach().numpy()


def front(x) -> torch.Tensor:
    return weights.tensors(np.moveaxis(np.asarray(x), -1, 1))


@pytest.fixture(scope="module")
def faces():
    head = heads.head_from_arrays(load_release("lite").params["head"])
    model = FaceAutoencoder(CFG, head)
    params = weights.random_weights(jax.eval_shape(model.init, jax.random.key(0)))
    twin = weights.load(lite_face.LiteFace(CFG), params)
    return model, params, twin, twin_head.head_tensors(head, "cpu")


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    image = rng.uniform(-1, 1, (8, 8, 3)).astype(np.float32).repeat(8, 0).repeat(8, 1)
    identity = rng.normal(0, 0.5, 50).astype(np.float32)
    own = np.zeros(MOTION_DIM, np.float32)
    own[:3], own[9:] = (0.1, -0.05, 0.03), rng.uniform(0, 0.2, 45)
    driving = rng.normal(0, 0.12, (2, MOTION_DIM)).astype(np.float32)
    driving[:, 9:] = rng.uniform(0, 0.7, (2, 45))
    driving[:, [MOTION_INDEX["eyeBlink_L"], MOTION_INDEX["eyeBlink_R"]]] = (0.8, 0.2), (1.0, 0.9)
    return image, identity, own, driving


def test_sampling_forms_agree_with_ours() -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(2, 4, 5, 6, 3)).astype(np.float32)
    points = rng.uniform(-1.3, 1.3, (2, 3, 4, 5, 3)).astype(np.float32)
    expected = sample_volumes(volume, *np.moveaxis(points, -1, 0))
    image, at = volume[:, 0], points[:, 0, ..., :2]
    flat = np.stack([sample_image(v, p) for v, p in zip(image, at, strict=True)])
    for form in ("grid", "gather"):
        made = sampling.sample(front(volume), torch.from_numpy(points), form)
        np.testing.assert_allclose(back(made), expected, atol=2e-6)
        made = sampling.sample(front(volume), torch.from_numpy(points).unbind(-1), form)
        np.testing.assert_allclose(back(made), expected, atol=2e-6)
        made = sampling.sample(front(image), torch.from_numpy(at), form)
        np.testing.assert_allclose(back(made), flat, atol=2e-6)


@pytest.fixture(scope="module")
def ours(faces, scene):
    """Our appearance, poses, warped layers and pictures, by one program."""
    model, params, *_ = faces
    image, identity, own, driving = scene

    @jax.jit
    def run(params, head, image, identity, own, driving):
        appearance = model.encode(params, head, image, identity, own, PLACEMENT)
        pose = jax.vmap(lambda m: heads.drive(own, PLACEMENT, m))(driving)
        warped = model.warp_pose(head, appearance, pose)
        return appearance, pose, warped, model.render_pose(params, head, appearance, pose)

    return run(params, model.head, image, identity, own, driving)


def test_head_and_raster(faces, scene, ours) -> None:
    model, _, _, head = faces
    image, identity, own, driving = scene
    appearance, pose, (warped, maps, contour, line, throat), _ = ours
    geometry, layers = appearance.geometry, appearance.layers
    q = weights.tensors
    mine = raster.place_source(head, q(identity), q(own), q(PLACEMENT), size=CFG.size)
    np.testing.assert_allclose(mine.placed, geometry.placed, atol=1e-4)  # depth is in cm
    assert (mine.opening.numpy() == geometry.opening).mean() > 0.999
    twin_pose = twin_head.drive(q(own), q(PLACEMENT), q(driving), q(heads.resting_share()))
    for name in ("rotation", "placement", "expression", "gaze"):
        np.testing.assert_allclose(getattr(twin_pose, name), getattr(pose, name), atol=1e-6)

    # From here on with our geometry of the portrait.
    given = raster.SourceGeometry(*q(geometry))
    skin_made = inpaint.skin_layer(front(image[None]), given.opening)
    np.testing.assert_allclose(back(skin_made)[0], layers[..., 3:], atol=ATOL)
    hair = hairline.hair(front(image[None])[0], mine)
    assert hair.max() > 0.5  # some of the scalp
    rim = mine.rim * (1.0 - hair)
    assert (np.abs(rim.numpy() - geometry.rim) < 1e-4).mean() > 0.995
    made = raster.drive_geometry(head, given, twin_pose, size=CFG.size)
    spread = front(layers[None]).expand(2, -1, -1, -1)
    moved = inpaint.warp_layers(spread, made, "gather")
    gap = np.abs(made.maps.numpy() - np.stack(maps, 1)).max(1)
    assert (gap > 1e-3).mean() < 0.005  # edges of triangles
    assert np.asarray(maps.mouth_interior).max() == 1.0  # the mouth is open
    assert np.asarray(line).max() > 0.1  # an eye is closing
    np.testing.assert_allclose(made.lashes.numpy()[:, 0][gap < 1e-3], line[gap < 1e-3], atol=1e-4)
    assert np.asarray(throat).sum() > 10
    np.testing.assert_array_equal(made.throat.numpy()[:, 0][gap < 1e-3], throat[gap < 1e-3])
    same = (gap < 1e-3) & (np.abs(raster.contour(made.flow).numpy()[:, 0] - contour) < 1e-3)
    assert same.mean() > 0.98
    np.testing.assert_allclose(back(moved)[same], np.asarray(warped)[same], atol=2e-3)


def test_warp_generator_resizes_as_ours() -> None:
    ours = WarpGenerator((4, 16, 16), 4)
    code = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), code)["params"]
    params = weights.random_weights(shapes)
    twin = weights.load(lite_face.WarpGenerator((4, 16, 16), 4, 6), params)
    made = twin(torch.from_numpy(code)).detach()
    np.testing.assert_allclose(made, ours.apply({"params": params}, code), atol=ATOL)


def test_nets_and_picture(faces, scene, ours) -> None:
    _, _, twin, head = faces
    image, identity, own, driving = scene
    appearance, pose, warped, expected = ours
    q = weights.tensors
    with torch.no_grad():
        mine = twin.encode(head, front(image[None]), q(identity), q(own), q(PLACEMENT))
    np.testing.assert_allclose(back(mine.volume)[0], appearance.volume, atol=10 * ATOL)
    np.testing.assert_allclose(mine.z_id[0], appearance.z_id, atol=ATOL)
    np.testing.assert_allclose(mine.irises, appearance.irises, atol=0.05)  # other edges, few pixels

    given = lite_face.Appearance(
        front(appearance.layers[None]), raster.SourceGeometry(*q(appearance.geometry)),
        front(appearance.volume[None]), q(appearance.z_id[None]), q(appearance.irises),
        q(appearance.mouth),
    )  # fmt: skip
    layers, maps, *planes = warped
    flat = q((np.stack(maps, 1), *(plane[:, None] for plane in planes)))
    with torch.no_grad():
        picture = twin.finish(front(layers), *flat, given, twin_head.Pose(*q(pose)))
        whole = twin.render(head, given, q(driving))
    np.testing.assert_allclose(back(picture), expected, atol=10 * ATOL)
    for made, theirs in zip(mine.mouth[1:], appearance.mouth[1:], strict=True):
        np.testing.assert_allclose(made, theirs, atol=0.02)  # other edges, few pixels
    for made, theirs in zip(
        *map(jax.tree.leaves, (mine.mouth.teeth, appearance.mouth.teeth)), strict=True
    ):
        np.testing.assert_allclose(made, theirs, atol=1e-5)
    levels = lite_face.to_uint8(whole).numpy().astype(int) - np.asarray(to_uint8(expected))
    assert (np.abs(levels) > 1).mean() < 0.02  # pixels that another triangle owns
    assert np.abs(levels).mean() < 0.3
    assert np.asarray(expected).std() > 0.2


def test_the_twins_raster_keeps_the_nearest_triangle() -> None:
    """Two triangles over each other: the one nearer to the viewer is seen."""
    near = [[-0.5, -0.5, 1.0], [0.5, 0.5, 1.0], [0.5, -0.5, 1.0]]
    far = [[x, y, -1.0] for x, y, _ in near]
    placed = torch.tensor([near + far, far + near])
    triangles = torch.tensor([[0, 1, 2], [3, 4, 5]])
    # They do not fit the usual window of 3 px: the larger ones, 4 px, draw their corners.
    triangle, depth = raster.rasterise(placed, triangles, size=16)
    seen = triangle >= 0
    if not seen.any():  # wound the other way round
        triangle, depth = raster.rasterise(placed, triangles.flip(1), size=16)
        seen = triangle >= 0
    assert set(triangle[0][seen[0]].tolist()) == {0}
    assert set(triangle[1][seen[1]].tolist()) == {1}
    np.testing.assert_allclose(depth[seen], 1.0, atol=1e-3)
