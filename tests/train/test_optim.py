import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.toy_task import ToyConfig
from vasa_jax.core.errors import UserError
from vasa_jax.train.optim import (
    OptimConfig,
    apply_gradients,
    gradients,
    learning_rate,
    make_optimizer,
)
from vasa_jax.train.state import TrainState


@pytest.mark.parametrize(
    ("decay", "middle", "end"), [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1, 1)]
)
def test_learning_rate_has_its_corner_values(decay, middle, end):
    cfg = OptimConfig(lr=2.0, steps=104, warmup=4, decay=decay, final_fraction=0.1)
    rate = [float(learning_rate(cfg, n)) for n in range(130)]
    np.testing.assert_allclose(rate[:4], 2.0 * np.arange(1, 5) / 5, rtol=1e-6)
    np.testing.assert_allclose(rate[4], 2.0, rtol=1e-6)
    np.testing.assert_allclose(rate[54], 2.0 * middle, rtol=1e-5)
    np.testing.assert_allclose(rate[104:], 2.0 * end, rtol=1e-5)
    assert (np.diff(rate[4:]) <= 1e-7).all()


def state_of(params, cfg):
    tx = make_optimizer(cfg)
    return tx, TrainState.create(params, tx, jax.random.key(0))


def test_first_adam_step_has_the_size_of_the_rate_against_the_gradient():
    # Adam's first update is lr * sign(g) (bias-corrected moments cancel), whatever the clipping.
    cfg = OptimConfig(lr=0.5, warmup=0, decay="constant", weight_decay=0.0, clip_norm=1.0)
    params = {"w": jnp.zeros((2, 2), jnp.float32)}
    tx, state = state_of(params, cfg)
    grads = {"w": jnp.asarray([[3.0, -4.0], [12.0, -84.0]], jnp.float32)}
    state, metrics = apply_gradients(cfg, tx, state, grads)
    np.testing.assert_allclose(state.params["w"], [[-0.5, 0.5], [-0.5, 0.5]], rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(np.hypot(5, 12), 84), rtol=1e-6)
    assert int(state.step) == 1


def test_weight_decay_spares_biases_and_scales():
    cfg = OptimConfig(lr=0.1, warmup=0, decay="constant", weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2), jnp.float32), "bias": jnp.ones((2,), jnp.float32)}
    tx, state = state_of(params, cfg)
    state, _ = apply_gradients(cfg, tx, state, jax.tree.map(jnp.zeros_like, params))
    np.testing.assert_allclose(state.params["kernel"], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(state.params["bias"], 1.0)


def test_average_follows_its_definition():
    cfg = OptimConfig(lr=0.1, warmup=0, ema_decay=0.6, weight_decay=0.0)
    params = {"w": jnp.asarray([[1.0, -2.0]], jnp.float32)}
    tx, state = state_of(params, cfg)
    expected = np.asarray(params["w"], np.float64)
    for n in range(30):
        state, _ = apply_gradients(cfg, tx, state, {"w": state.params["w"]})
        d = min(0.6, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * np.asarray(state.params["w"], np.float64)
        np.testing.assert_allclose(state.ema["w"], expected, rtol=1e-5, atol=1e-6)


def test_no_averaging_means_the_parameters_themselves():
    cfg = OptimConfig(ema_decay=0.0)
    tx, state = state_of({"w": jnp.ones((2, 2), jnp.float32)}, cfg)
    state, _ = apply_gradients(cfg, tx, state, {"w": jnp.ones((2, 2), jnp.float32)})
    np.testing.assert_array_equal(state.ema["w"], state.params["w"])


def test_senseless_settings_are_refused():
    bad = {"lr": 0.0, "steps": 0, "ema_decay": 1.0, "decay": "step", "accumulate": 0}
    for name, value in bad.items():
        with pytest.raises(ValueError):
            OptimConfig(**{name: value})


def test_microbatches_sum_to_the_gradient_of_the_whole_batch():
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    w = jnp.asarray([1.0, -2.0, 0.5], jnp.float32)
    scale = np.full(12, 2.0, np.float32)  # as long as the batch, and yet no row

    def loss(params, batch):
        value = batch["scale"].mean() * jnp.mean(jnp.square(batch["x"] @ params["w"]))
        return value, {"rows": jnp.float32(len(batch["x"]))}

    exact = 2.0 * 2.0 / 12 * x.T.astype(np.float64) @ (x.astype(np.float64) @ np.asarray(w))
    for parts in (1, 2, 3, 12):
        grads, terms = jax.jit(
            lambda p, parts=parts: gradients(
                loss, p, {"scale": scale, "x": x}, parts=parts, shared=("scale",)
            )
        )({"w": w})
        np.testing.assert_allclose(grads["w"], exact, rtol=1e-5)
        assert terms["rows"] == 12 / parts  # so much is held at once
        np.testing.assert_allclose(terms["loss"], 2 * np.mean(np.square(x @ w)), rtol=1e-5)
    with pytest.raises(UserError, match=r"accumulate=5 does not divide a batch of 12"):
        gradients(loss, {"w": w}, {"scale": scale, "x": x}, parts=5, shared=("scale",))


def test_a_task_takes_the_same_step_in_microbatches():
    made = {}
    for parts in (1, 4):
        cfg = ToyConfig(noise=0.3, pure=True, optim=OptimConfig(lr=0.1, accumulate=parts))
        task = cfg.task()
        state = task.init(jax.random.key(0))
        batch = next(task.batches(0))
        made[parts] = jax.jit(task.update)(state, batch, state.step_key(), task.constants)
    (one, terms), (four, terms_four) = made[1], made[4]
    np.testing.assert_allclose(terms["loss"], terms_four["loss"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(one.opt_state), jax.tree.leaves(four.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
