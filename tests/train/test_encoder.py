"""E_motion learns: a short run must beat the best constant, and agree with the truth on lips."""

import dataclasses

import jax
import numpy as np
import pytest

from vasa_jax.face.head.reader import MotionEncoderConfig
from vasa_jax.synth.speech import visemes
from vasa_jax.train import encoder, loop
from vasa_jax.train.optim import OptimConfig


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def config(steps: int) -> encoder.EncoderTrainConfig:
    return encoder.EncoderTrainConfig(
        model=MotionEncoderConfig(width=64, depth=1),
        batch=32,
        optim=OptimConfig(lr=3e-3, steps=steps, warmup=10, ema_decay=0.9),
        loop=loop.LoopConfig(log_every=50, picture_every=0, evaluate_every=0, checkpoint_every=0),
    )


@pytest.mark.slow
def test_a_short_run_beats_the_mean(tmp_path):
    cfg = config(300)
    # People and poses as in training, but a detector without errors: the oracle is the truth.
    data = dataclasses.replace(cfg.data, smooth_cm=(0.0, 0.0), white_cm=(0.0, 0.0))
    task = dataclasses.replace(cfg, data=data).task()
    outcome = loop.run(task, tmp_path / "run", steps=300, loop=cfg.loop)
    found = task.evaluate(outcome.state)
    assert found["weights_error"] < 0.9 * found["weights_error_of_mean"]
    assert found["lip_gap_cm_r"] > 0.9
    assert found["eyeBlink_L_r"] > 0.8


def test_batches_are_a_function_of_the_step():
    task = encoder.EncoderTask(config(10))
    third = [next(task.batches(3))["expression"] for _ in range(2)]
    np.testing.assert_array_equal(*third)
    assert np.abs(third[0] - next(task.batches(4))["expression"]).max() > 0.1


def test_agreement_of_the_truth_with_itself_is_perfect():
    rng = np.random.default_rng(0)
    truth, eye = encoder.sparse_expressions(rng, 200), rng.normal(size=(200, 2))
    found = encoder.agreement(truth, eye, truth, eye)
    np.testing.assert_allclose(found["jawOpen_r"], 1.0, rtol=1e-6)
    assert found["lip_gap_cm_error"] == 0.0 and found["gaze_yaw_error"] == 0.0


def test_sparse_expressions_are_sparse_and_never_close_more_than_the_jaw_opens():
    x = encoder.sparse_expressions(np.random.default_rng(0), 500)
    assert x.min() >= 0 and x.max() <= 1
    assert ((x > 0).sum(1) <= 12).all() and (x > 0).any(0).all()
    close, jaw = x[:, visemes.INDEX["mouthClose"]], x[:, visemes.INDEX["jawOpen"]]
    assert (close <= 0.8 * jaw + 1e-6).all()
