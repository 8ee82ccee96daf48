"""The training step of the full face model: traced at full size, and what moves what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.face.tiny_volumetric import filled
from vasa_jax.core.config import load_config, override
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import flatten
from vasa_jax.face.volume.autoencoder import VolumetricAppearance
from vasa_jax.train import volumetric
from vasa_jax.train.disguise import DisguiseConfig, disguise
from vasa_jax.train.passes import Frames
from vasa_jax.train.state import TrainState
from vasa_jax.train.volumetric import Scene, VolumetricTask

pytestmark = pytest.mark.usefixtures("broadcasting")


class NoPairs:
    """Stands in for face files, of which there are none at 512 px."""

    def __init__(self, cfg, **kwargs):
        pass


def batch_shapes(cfg, task):
    b, n = cfg.batch, cfg.model.size
    fit = {"motion": (54,), "placement": (3,)}
    shapes = {"identity": (b, task.constants.head.identity.shape[0])}
    for side in ("source", "target"):
        shapes |= {f"{side}_{name}": (b, *size) for name, size in fit.items()}
    table = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    picture = jax.ShapeDtypeStruct((b, n, n, 3), jnp.uint8)
    return table | {"source": picture, "target": picture}


def task_of(cfg, monkeypatch):
    monkeypatch.setattr(volumetric, "FacePairs", NoPairs)
    data = dataclasses.replace(cfg.data, folder="example")
    loss = dataclasses.replace(cfg.loss, face=0.0, cross_identity=0.0)  # nets to be downloaded
    return VolumetricTask(dataclasses.replace(cfg, data=data, loss=loss))


@pytest.mark.slow
def test_the_full_step_keeps_the_shapes_of_its_state(monkeypatch):
    cfg = load_config("configs/face_512.py")
    task = task_of(dataclasses.replace(cfg, batch=2), monkeypatch)
    state = jax.eval_shape(task.init, jax.random.key(0))
    batch = batch_shapes(task.cfg, task)
    after, metrics = jax.eval_shape(task.update, state, batch, state.key, task.constants)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    assert {"loss", "perceptual", "transfer_l1", "transfer_perceptual", "contrastive"} <= set(
        metrics
    )
    assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())


class Brush:
    """A model of one parameter: every picture is the driver's, that much brighter."""

    def __init__(self, picture):
        self.picture = picture

    def aligned_faces(self, image, pose):
        return image

    def dynamics(self, params, face, *, dropout=None):
        return face[:, 0, 0, :2]

    def encode(self, params, image, mask, pose, z_dyn):
        return VolumetricAppearance(image[:, None], image)

    def decode(self, params, appearance, pose, z_dyn):
        return params * self.picture[:1] * jnp.ones((len(pose), 1, 1, 1))


def test_the_adversarial_loss_moves_the_generator_and_not_the_judge(monkeypatch):
    """Others detach the picture, and their generator never hears its judge (paper facts 4.2)."""
    smoke = load_config("configs/face_512.py:smoke")
    task = task_of(dataclasses.replace(smoke, batch=2), monkeypatch)
    none = {f.name: 0.0 for f in dataclasses.fields(task.cfg.loss) if f.type == "float"}
    alone = dataclasses.replace(task.cfg.loss, **none | {"adversarial": 1.0})
    task.cfg = dataclasses.replace(task.cfg, loss=alone)
    judge = filled(
        jax.eval_shape(
            lambda: task.discriminator.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
        )
    )
    rng = np.random.default_rng(0)
    real, made = (
        jnp.asarray(rng.uniform(-1, 1, size=(2, 64, 64, 3)), jnp.float32) for _ in range(2)
    )
    task.model = Brush(made)
    side = Frames(real, jnp.ones((2, 64, 64, 1)), jnp.zeros((2, 7)), real)
    scene = Scene(side, side, *(jnp.zeros((2, 478, 2)),) * 3, jnp.ones(2))

    def total(brightness, judge):
        key, step = jax.random.key(0), jnp.int32(0)
        return task.generator_loss(brightness, judge, scene, step, key, None)[0]

    assert jax.grad(total)(jnp.float32(0.5), judge) != 0
    judged = jax.grad(lambda f: task.discriminator_loss(judge, f, scene))(made)
    assert not np.any(judged)  # the judge's own step sees constants
    of_judge = jax.grad(lambda p: task.discriminator_loss(p, made, scene))(judge)
    assert all(np.any(g) for name, g in flatten(of_judge).items() if name.endswith("kernel"))


class Tint(Brush):
    """Its pictures are the portrait with a share of a pattern, so codes read back differ, too."""

    def decode(self, params, appearance, pose, z_dyn):
        return 0.5 * appearance.z_id + params * self.picture


def tiny_update(monkeypatch, batch, parts):
    """A task with a model of one parameter, no disguise and plain descent; its state and batch."""
    smoke = load_config("configs/face_512.py:smoke")
    none = {f.name: 0.0 for f in dataclasses.fields(smoke.loss) if f.type == "float"}
    loss = dataclasses.replace(
        smoke.loss, **none | {"l1": 1.0, "contrastive": 1.0, "contrastive_scale": 5.0,
                              "contrastive_margin": 0.2, "adversarial": 1.0},
    )  # fmt: skip
    optim = dataclasses.replace(smoke.optim, accumulate=parts)
    cfg = dataclasses.replace(smoke, loss=loss, optim=optim, batch=len(batch["target"]))
    task = task_of(cfg, monkeypatch)
    monkeypatch.setattr(volumetric, "disguise", lambda cfg, face, key: face)
    task.tx = task.discriminator_tx = optax.sgd(1.0)
    task.model = Tint(jnp.linspace(-1, 1, 64 * 64 * 3).reshape(1, 64, 64, 3))

    def scene(head, batch):
        n = len(batch["target"])
        ones, nowhere = jnp.ones((n, 64, 64, 1)), jnp.zeros((n, 478, 2))
        sides = [Frames(batch[k], ones, jnp.zeros((n, 7)), batch[k]) for k in ("source", "target")]
        return Scene(*sides, *(nowhere,) * 3, jnp.ones(n))

    monkeypatch.setattr(task, "scene", scene)
    monkeypatch.setattr(
        task, "crossed_landmarks", lambda head, fits: jnp.zeros((len(fits["identity"]), 478, 2))
    )
    judge = filled(
        jax.eval_shape(
            lambda: task.discriminator.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
        )
    )
    extra = {"discriminator": {"params": judge, "opt_state": task.discriminator_tx.init(judge)}}
    state = TrainState.create(jnp.float32(0.5), task.tx, jax.random.key(0), extra=extra)
    return task, state


def four_pairs():
    rng = np.random.default_rng(0)
    shapes = {"source": (4, 64, 64, 3), "target": (4, 64, 64, 3), "identity": (4, 2)}
    shapes |= {"target_motion": (4, 2), "target_placement": (4, 2)}
    return {k: rng.uniform(-1, 1, size=s).astype(np.float32) for k, s in shapes.items()}


def test_microbatches_are_gone_through_one_after_the_other(monkeypatch):
    """Everything that costs memory lies in one loop, whose length is their number."""
    batch = four_pairs()
    task, state = tiny_update(monkeypatch, batch, 2)
    traced = jax.make_jaxpr(task.update)(state, batch, jax.random.key(1), task.constants)
    loops = [e.params["length"] for e in traced.jaxpr.eqns if e.primitive.name == "scan"]
    assert loops == [2]


@pytest.mark.slow
def test_microbatches_have_the_gradients_of_their_own_rows(monkeypatch):
    """Of both nets, each microbatch with its own neighbours; the mean of all moves them once."""
    batch = four_pairs()

    def after(batches, parts):
        task, state = tiny_update(monkeypatch, batches[0], parts)
        update = jax.jit(task.update)
        for one in batches:
            new, told = update(state, one, jax.random.key(1), task.constants)
            judge = flatten(new.extra["discriminator"]["params"])
            yield {"own": new.params, **judge}, told

    ((whole, _),) = after([batch], 1)
    ((both, told),) = after([batch], 2)
    halves = list(after([{k: x[i::2] for k, x in batch.items()} for i in (0, 1)], 1))
    for name in both:
        mean = np.mean([params[name] for params, _ in halves], 0)
        np.testing.assert_allclose(both[name], mean, rtol=1e-4, atol=1e-5, err_msg=name)
    assert abs(float(both["own"] - whole["own"])) > 1e-4  # whose neighbours are others
    assert {"loss", "l1", "contrastive", "adversarial", "discriminator", "grad_norm"} <= set(told)
    for name in ("loss", "l1", "contrastive", "adversarial", "discriminator"):
        mean = np.mean([metrics[name] for _, metrics in halves])
        np.testing.assert_allclose(told[name], mean, rtol=1e-4, err_msg=name)
    want = told["l1"] + told["contrastive"] + told["adversarial"]
    np.testing.assert_allclose(told["loss"], want, rtol=1e-5)  # without the judge's


def test_terms_begin_when_their_share_of_the_run_is_done(monkeypatch):
    cfg = load_config("configs/face_512.py:smoke")
    loss = dataclasses.replace(cfg.loss, mixing_start=0.25, transfer_start=0.5)
    task = task_of(dataclasses.replace(cfg, loss=loss), monkeypatch)
    steps, c = cfg.optim.steps, task.cfg.loss
    for step, mixing, transfer in ((0, 0, 0), (steps // 4, 1, 0), (steps // 2, 1, 1)):
        weight = task.weights(jnp.int32(step))
        assert weight["l1"] == c.l1
        assert weight["contrastive"] == mixing * c.contrastive
        for name in ("l1", "perceptual"):
            assert weight[f"transfer_{name}"] == transfer * c.transfer * getattr(c, name)


def test_the_older_weight_of_transfer_is_no_share():
    with pytest.raises(UserError, match="loss.transfer=5.0: .* share"):
        override(load_config("configs/face_512.py"), ["loss.transfer=5.0"])


def test_boxes_reach_a_fifth_of_their_width_beyond_the_landmarks():
    points = jnp.array([[[20.0, 30.0], [30.0, 34.0], [25.0, 32.0]], [[0, 0], [10, 10], [5, 5]]])
    boxes = np.asarray(volumetric.box_around(points, 64))[..., 0]
    expected = np.zeros((2, 64, 64))
    expected[0, 28:36, 18:32] = 1  # 10 px wide, 2 more on every side; 4 high
    expected[1, :12, :12] = 1  # cut by the picture
    np.testing.assert_array_equal(boxes, expected)


def test_what_cannot_be_trained_is_refused(monkeypatch):
    cfg = load_config("configs/face_512.py:smoke")
    with pytest.raises(UserError, match="at least 2"):
        task_of(dataclasses.replace(cfg, batch=1), monkeypatch)
    many = dataclasses.replace(cfg.optim, accumulate=4)
    with pytest.raises(UserError, match="at least 8 for 4 microbatches"):
        task_of(dataclasses.replace(cfg, batch=4, optim=many), monkeypatch)
    drawn = dataclasses.replace(cfg.model, matte=True)
    untaught = dataclasses.replace(cfg.loss, matte=0.0)
    with pytest.raises(UserError, match="wants loss.matte above 0"):
        task_of(dataclasses.replace(cfg, model=drawn, loss=untaught), monkeypatch)
    with pytest.raises(UserError, match="for both nets"):
        task_of(dataclasses.replace(cfg, batch=8, discriminator_optim=many), monkeypatch)
    with pytest.raises(UserError, match="model.size"):
        task_of(dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, size=64)), monkeypatch)


def test_a_disguise_changes_shape_and_colour_and_nothing_when_switched_off():
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.uniform(-0.8, 0.8, size=(3, 4, 4, 3)), jnp.float32)
    face = jax.image.resize(coarse, (3, 32, 32, 3), "linear")
    off = DisguiseConfig(warp=0, brightness=0, contrast=0, saturation=0, tint=0, grey=0)
    np.testing.assert_allclose(disguise(off, face, jax.random.key(0)), face, atol=1e-5)
    out = disguise(DisguiseConfig(), face, jax.random.key(0))
    assert out.shape == face.shape and float(jnp.abs(out).max()) <= 1.0
    changes = jnp.abs(out - face).mean((1, 2, 3))
    assert float(changes.min()) > 0.02
    assert float(jnp.ptp(changes)) > 1e-3  # each face its own
    grey = disguise(dataclasses.replace(off, grey=1.0), face, jax.random.key(0))
    np.testing.assert_allclose(grey, jnp.broadcast_to(grey[..., :1], grey.shape), atol=1e-5)
    # A warp alone keeps the outline of the picture: only inner grid points move.
    bent = disguise(dataclasses.replace(off, warp=0.3), face, jax.random.key(1))
    assert float(jnp.abs(bent - face)[:, 12:20, 12:20].mean()) > 10 * float(
        jnp.abs(bent - face)[:, 0].mean()
    )
