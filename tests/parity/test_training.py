"""Losses and gradients of the PyTorch trainers against ours: every leaf, and one AdamW update."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.face.tiny_volumetric import TINY
from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core.tree import flatten
from vasa_jax.face.volume.autoencoder import VolumetricAutoencoder
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.losses.reconstruction import weighted_l1
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.train.motion import MotionTrainConfig, drawn_loss
from vasa_jax.train.optim import OptimConfig, make_optimizer

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("broadcasting")]

from tools.side_by_side.scenes import motion_batch  # noqa: E402  # after the skip
from tools.torch_ref import motion, training, volumetric, weights  # noqa: E402


def assert_same_gradients(expected: Any, net: torch.nn.Module, share: float = 2e-3) -> None:
    """Gaps are at most that share of a tensor's largest gradient."""
    made, seen = weights.gradients(net), 0
    for name, leaf in flatten(expected).items():
        leaf, grad = np.asarray(leaf), made[name.replace("/scale", "/kernel")]
        gap = np.abs(grad.reshape(leaf.shape) - leaf).max()
        assert gap <= share * np.abs(leaf).max() + 2e-6, (name, gap, np.abs(leaf).max())
        seen += np.abs(leaf).max() > 0
    assert seen > 0.8 * len(made)


def test_motion_objective() -> None:
    model = MotionModelConfig(
        encoder=EncoderConfig(width=16, hidden=24, num_blocks=1),
        transformer=TransformerConfig(depth=1, width=16, num_heads=2, audio_tokens=False),
        window=12, past=4, num_visemes=3,
    )  # fmt: skip
    cfg = MotionTrainConfig(
        model=model, loss=MotionLossConfig(velocity=1.0, auxiliary=0.5, viseme=0.1, sealed=2.0)
    )
    rng = np.random.default_rng(0)
    stats = MotionStats(
        rng.normal(size=54).astype(np.float32), rng.uniform(0.1, 1, 54).astype(np.float32)
    )
    batch = motion_batch(cfg, 4)
    params = weights.random_weights(
        jax.eval_shape(lambda k: init_params(model, k), jax.random.key(0))
    )

    def loss(params):
        return drawn_loss(cfg, stats, params, batch)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    net = weights.load(motion.MotionModel(model), params)
    objective = training.MotionObjective(net, cfg, stats)
    data = weights.tensors(objective.with_noise_levels(cfg, batch))
    trainer = training.Trainer(objective, OptimConfig(clip_norm=0.5, warmup=3))
    made = trainer.gradients(data)
    np.testing.assert_allclose(made, value, rtol=1e-5)
    assert_same_gradients(grads, net)


@pytest.mark.slow
def test_driven_pass_of_the_full_face() -> None:
    cfg = dataclasses.replace(TINY, dropout=0.0)
    model = VolumetricAutoencoder(cfg)
    params = weights.random_weights(jax.eval_shape(model.init, jax.random.key(0)))
    rng = np.random.default_rng(1)
    n, k = cfg.size, cfg.dynamics_size
    batch = {}
    for side in ("source", "driver"):
        batch[side] = rng.uniform(-1, 1, (1, n, n, 3)).astype(np.float32)
        batch[f"{side}_mask"] = (rng.random((1, n, n, 1)) < 0.7).astype(np.float32)
        batch[f"{side}_pose"] = rng.normal(0, 0.1, (1, 7)).astype(np.float32)
        batch[f"{side}_face"] = rng.uniform(-1, 1, (1, k, k, 3)).astype(np.float32)

    def loss(params):
        b = batch
        z = model.dynamics(params, jnp.concatenate([b["source_face"], b["driver_face"]]))
        appearance = model.encode(params, b["source"], b["source_mask"], b["source_pose"], z[:1])
        picture = model.decode(params, appearance, b["driver_pose"], z[1:])
        return weighted_l1(picture, b["driver"], b["driver_mask"]).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    # Not channels-last: see the training step in tools/side_by_side/torch_forms.py.
    net = weights.load(volumetric.VolumetricFace(cfg), params, channels_last=False)
    placed = {
        name: torch.from_numpy(x if name.endswith("pose") else np.moveaxis(x, -1, 1).copy())
        for name, x in batch.items()
    }
    made = training.Trainer(training.FullFaceObjective(net), OptimConfig()).gradients(placed)
    np.testing.assert_allclose(made, value, rtol=1e-5)
    # Rounding puts some numbers on the other side of a ReLU's kink: in float32 both frameworks are
    # up to 3 % from the gradients in double precision, and from each other.
    assert_same_gradients(grads, net, share=0.05)


def test_adamw_moves_as_ours() -> None:
    """Three updates by the same gradients, clipped, with decay on matrices alone."""
    cfg = OptimConfig(lr=0.05, warmup=1, steps=10, clip_norm=1.0, weight_decay=0.1, ema_decay=0.9)
    rng = np.random.default_rng(2)
    params = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    net = torch.nn.Linear(3, 4)
    weights.load(net, params)
    trainer = training.Trainer(net, cfg)
    tx = make_optimizer(cfg)
    state = tx.init(params)
    for _ in range(3):
        grads = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in params.items()}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        net.weight.grad = torch.from_numpy(grads["kernel"].T.copy())
        net.bias.grad = torch.from_numpy(grads["bias"].copy())
        trainer.update()
    np.testing.assert_allclose(net.weight.detach().numpy().T, params["kernel"], rtol=1e-5)
    np.testing.assert_allclose(net.bias.detach().numpy(), params["bias"], rtol=1e-5)
    # The average forgets its start: after n updates it has weight (1 + n) / (10 + n) at most.
    gap = (trainer.average[0] - net.weight).abs().max()
    assert 0 < gap < 0.2
