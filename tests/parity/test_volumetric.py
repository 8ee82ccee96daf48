"""The PyTorch twin of the full stage 1 against ours, net by net and as a whole."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.face.tiny_volumetric import TINY
from vasa_jax.face.head import pose as rigid
from vasa_jax.face.volume.autoencoder import VolumetricAppearance, VolumetricAutoencoder

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("broadcasting")]

from tools.torch_ref import layers, volumetric, weights  # noqa: E402  # after the skip

ATOL = 2e-4  # float32 after some thirty layers, values of about one
POSES = np.array(
    [[0.3, -0.2, 0.1, 0.1, -0.05, 0.02, 0.1], [-0.4, 0.1, 0.0, -0.1, 0.1, 0.0, -0.1]], np.float32
)


def front(x) -> torch.Tensor:
    return weights.tensors(np.moveaxis(np.asarray(x), -1, 1))


def back(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).detach().numpy()


def test_rigid_matrices() -> None:
    for name in ("view_from_canonical", "canonical_from_view"):
        made = getattr(volumetric, name)(torch.from_numpy(POSES))
        expected = np.stack([getattr(rigid, name)(jnp.asarray(p)) for p in POSES])
        np.testing.assert_allclose(made, expected, atol=1e-6)
    grid = volumetric.rigid_grid(made, (2, 3, 4))
    np.testing.assert_allclose(grid, rigid.rigid_grid(jnp.asarray(expected), (2, 3, 4)), atol=1e-6)


def test_full_model() -> None:
    # Widths that differ everywhere, so that no mistaken order of channels goes unseen.
    cfg = dataclasses.replace(TINY, volume=(4, 16, 16, 6), decoder_width=12)
    model = VolumetricAutoencoder(cfg)
    params = weights.random_weights(jax.eval_shape(model.init, jax.random.key(0)))
    twin = weights.load(volumetric.VolumetricFace(cfg), params)
    rng = np.random.default_rng(4)
    image = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32).repeat(8, 1).repeat(8, 2)
    mask = (rng.random((2, 128, 128, 1)) < 0.7).astype(np.float32)
    face = image[:, :, ::-1]

    @jax.jit
    def ours(params):
        z_dyn = model.dynamics(params, face)
        appearance = model.encode(params, image, mask, POSES, z_dyn)
        picture = model.decode(params, appearance, POSES[::-1], z_dyn)
        twice = jax.tree.map(lambda a: jnp.stack([a[0], a[0]]), appearance)
        return z_dyn, appearance, picture, model.decode(params, twice, POSES, z_dyn)

    z_dyn, appearance, picture, rendered = ours(params)
    q = weights.tensors
    for net in (twin, layers.fold(twin)):
        with torch.no_grad():
            made = net.dynamics(front(face))
            encoded = net.encode(front(image), front(mask), q(POSES), q(z_dyn))
            given = volumetric.VolumetricAppearance(*map(front, appearance))
            shown = net.decode(given, q(POSES[::-1].copy()), q(z_dyn))
            one = volumetric.VolumetricAppearance(*(x[:1] for x in given))
            again = net.render(one, torch.cat([q(POSES), q(z_dyn)], 1))
        np.testing.assert_allclose(made, z_dyn, atol=ATOL)
        for name in VolumetricAppearance._fields:
            expected = getattr(appearance, name)
            np.testing.assert_allclose(back(getattr(encoded, name)), expected, atol=5 * ATOL)
        np.testing.assert_allclose(back(shown), picture, atol=ATOL)
        np.testing.assert_allclose(back(again), rendered, atol=ATOL)
    assert np.asarray(appearance.volume).std() > 0.1 and np.asarray(picture).std() > 0.1
