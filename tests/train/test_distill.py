"""Distillation: its target against data whose flow is known, and its task in the loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.checkpoint.release import save_release
from vasa_jax.core import config as configs
from vasa_jax.core.arkit import MOTION_DIM, MOUTH
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT
from vasa_jax.core.tree import differences
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.diffusion import samplers
from vasa_jax.diffusion.exact import Gaussian
from vasa_jax.diffusion.samplers import SAMPLERS
from vasa_jax.diffusion.schedules import SCHEDULES
from vasa_jax.diffusion.times import uniform
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.train import distill, loop
from vasa_jax.train.initial import load_teacher
from vasa_jax.train.optim import OptimConfig

DATA = Gaussian()
DETERMINISTIC = [name for name, step in SAMPLERS.items() if step.order > 0]


def points(count=64):
    return jax.random.normal(jax.random.key(1), (count, 2))


# --- the target ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_step_with_the_target_lands_where_the_exact_flow_does(schedule):
    schedule = SCHEDULES[schedule]()
    with jax.enable_x64(True):
        for t, s in ((1.0, 0.75), (0.75, 0.5), (0.25, 0.0)):
            x, t, s = points(), jnp.asarray(t), jnp.asarray(s)
            landed = DATA.flow(schedule, x, t, s)
            x0 = distill.one_step_target(schedule, x, t, s, landed)
            got = SAMPLERS["ddim"](
                schedule, samplers.State(x), lambda x, t, x0=x0: x0, t, s, jnp.zeros_like(x)
            ).x
            np.testing.assert_allclose(got, landed, atol=1e-9)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_targets_lead_where_the_teachers_substeps_led(name):
    schedule = SCHEDULES["cosine"]()
    with jax.enable_x64(True):
        times = uniform(schedule, 4).astype(jnp.float64)
        states = jnp.stack([points(8) * (i + 1) for i in range(4)])

        def teacher(x, t):
            return DATA.denoise(schedule, x, t)

        target = distill.teacher_targets(schedule, teacher, SAMPLERS[name], states, times, 3)
        for i in range(4):
            grid = jnp.linspace(times[i], times[i + 1], 4)
            want = samplers.sample(SAMPLERS[name], schedule, teacher, states[i], grid)
            got = samplers.sample(
                SAMPLERS["ddim"], schedule, lambda x, t, i=i: target[i], states[i], times[i : i + 2]
            )
            np.testing.assert_allclose(got, want, atol=1e-7)


def test_a_teacher_of_one_ddim_substep_teaches_itself():
    schedule = SCHEDULES["cosine"]()
    times = uniform(schedule, 4)

    def teacher(x, t):
        return DATA.denoise(schedule, x, t)

    states, said = distill.rollout(schedule, teacher, points(), times)
    target = distill.teacher_targets(schedule, teacher, SAMPLERS["ddim"], states, times, 1)
    np.testing.assert_allclose(target, said, atol=2e-5)


def test_weights_are_the_truncated_and_capped_ratio():
    schedule = SCHEDULES["cosine"]()
    times = uniform(schedule, 4)
    a, s = schedule.alpha(times[:-1]), schedule.sigma(times[:-1])
    want = np.minimum(np.maximum(np.square(a / s), 1.0), 5.0)
    np.testing.assert_allclose(distill.snr_weights(schedule, times, 5.0), want, rtol=1e-4)


# --- learning -----------------------------------------------------------------------------------


def test_a_student_is_nearer_to_the_exact_flow_than_the_teacher_in_as_few_steps():
    """An affine student per step can say all there is to say about a Gaussian."""
    schedule, steps, substeps = SCHEDULES["cosine"](), 4, 8
    times = uniform(schedule, steps)

    def teacher(x, t):
        return DATA.denoise(schedule, x, t)

    def student(params):
        def denoise(x, t):
            p = jax.tree.map(lambda a: a[jnp.round((1.0 - t) * steps).astype(int)], params)
            return x @ p["slope"] + p["shift"][None]

        return denoise

    def error(denoise, grid=times):
        x = jax.random.normal(jax.random.key(2), (256, 2))
        got = samplers.sample(SAMPLERS["ddim"], schedule, denoise, x, grid)
        return float(jnp.abs(got - DATA.flow(schedule, x, times[0], times[-1])).mean())

    def loss(params, key):
        x = jax.random.normal(key, (64, 2))
        states, said = distill.rollout(schedule, student(params), x, times)
        step = SAMPLERS["ddim"]
        want = distill.teacher_targets(schedule, teacher, step, states, times, substeps)
        return jnp.square(said - want).mean()

    params = {"slope": jnp.zeros((steps, 2, 2)), "shift": jnp.zeros((steps, 2))}
    tx = optax.adam(optax.cosine_decay_schedule(0.1, 600))

    def update(carry, key):
        params, opt = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, opt = tx.update(jax.grad(loss)(params, key), opt)
        return (optax.apply_updates(params, updates), opt), None

    keys = jax.random.split(jax.random.key(0), 600)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(update, c, keys))((params, tx.init(params)))
    few, many = error(teacher), error(teacher, uniform(schedule, steps * substeps))
    assert error(student(params)) < 0.3 * few
    # It has learned the teacher's 32 steps, and nothing better.
    assert abs(error(student(params)) - many) < 0.25 * many


# --- the motion model ---------------------------------------------------------------------------

MODEL = MotionModelConfig(
    encoder=EncoderConfig(width=8, hidden=8, num_blocks=1),
    transformer=TransformerConfig(depth=1, width=8, num_heads=1),
    window=12,
    past=4,
)
QUIET = loop.LoopConfig(log_every=1, picture_every=0, evaluate_every=0, checkpoint_every=0)


@pytest.fixture(scope="module")
def teacher(broadcasting, tmp_path_factory):
    """A release that is random motion weights and nothing else."""
    del broadcasting  # the network and the optimiser broadcast by rank
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    params = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), shapes)
    stats = {"motion": MotionStats.unit().to_json(), "frames": 1}
    folder = tmp_path_factory.mktemp("teacher") / "release"
    config = {"motion": {"model": configs.to_json(MODEL)}}
    save_release(folder, {"motion": params}, config, {"motion": stats}, "random weights")
    return folder


def config(teacher, **changes) -> distill.DistillConfig:
    return distill.DistillConfig(
        teacher=str(teacher), model=MODEL, data=MotionDataConfig(batch=4), substeps=1, loop=QUIET,
        reference_steps=2, optim=OptimConfig(lr=1e-2, steps=4, warmup=0, weight_decay=0.0),
        **changes,
    )  # fmt: skip


def test_the_task_learns_resumes_exactly_and_leaves_the_teacher_alone(teacher, tmp_path):
    cfg = config(teacher)
    task = cfg.task()
    before = jax.tree.map(np.array, task.teacher)
    whole = loop.run(task, tmp_path / "whole", steps=2, loop=QUIET, config=configs.to_json(cfg))
    for steps in (1, 2):
        parts = loop.run(task, tmp_path / "parts", steps=steps, loop=QUIET)
    assert not differences(whole.state.params, parts.state.params, values=True)
    assert not differences(before, task.teacher, values=True)
    assert differences(before, whole.state.params, values=True)
    report = task.evaluate(whole.state)
    assert all(np.isfinite(v) for v in report.values())
    # A student's run folder has all that a release or a next teacher needs.
    weights, stats = load_teacher(str(tmp_path / "whole"), MODEL)
    assert not differences(whole.state.ema, weights, values=True)
    assert stats == task.teacher_stats
    assert configs.to_json(cfg)["generate"]["steps"] == 4


def test_the_mouth_is_guided_by_a_scale_of_its_own():
    scales = distill.audio_scale(ARKIT, 0.5, 1.5)["audio"]
    assert scales.shape == (1, 1, MOTION_DIM)
    np.testing.assert_array_equal(scales[0, 0, np.asarray(MOUTH)], 1.5)
    np.testing.assert_array_equal(np.delete(scales[0, 0], np.asarray(MOUTH)), 0.5)
    assert distill.audio_scale(ARKIT, *distill.UNGUIDED) == {}


def test_the_first_weights_are_the_teachers(teacher):
    task = config(teacher).task()
    assert not differences(task.teacher, task.initial_params(None), values=True)


@pytest.mark.slow
def test_a_student_goes_on_where_another_stopped(teacher, tmp_path):
    cfg = config(teacher)
    first = loop.run(cfg.task(), tmp_path / "first", steps=1, loop=QUIET)
    task = dataclasses.replace(cfg, student=str(tmp_path / "first")).task()
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    assert not differences(first.state.ema, task.initial_params(shapes), values=True)


def test_wrong_settings_are_told(teacher):
    with pytest.raises(UserError, match="no teacher"):
        config("").task()
    with pytest.raises(UserError, match="window is 12"):
        dataclasses.replace(config(teacher), model=dataclasses.replace(MODEL, window=10)).task()
    with pytest.raises(ValueError, match="deterministic"):
        config(teacher, teacher_sampler="ancestral")
