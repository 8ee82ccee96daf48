"""The sync net learns which sound belongs to a mouth, where that is certain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.data.augment import AugmentConfig
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.data.shards import MotionClip, write_shard
from vasa_jax.metrics.sync_net import CURVES, SyncNetConfig
from vasa_jax.train import loop
from vasa_jax.train.optim import OptimConfig
from vasa_jax.train.sync_net import SyncTrainConfig, contrast, other_throat


@pytest.fixture(autouse=True)
def broadcasting():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_contrast_is_log_n_without_knowledge_and_zero_with_all():
    alike = jnp.ones((6, 4)) / 2.0
    valid = jnp.array([True] * 5 + [False])
    value, _ = contrast(alike, alike, jnp.array(3.0), valid)
    assert value == pytest.approx(np.log(5.0), rel=1e-5)
    known = jnp.eye(6)
    value, hit = contrast(known, known, jnp.array(50.0), valid)
    assert value == pytest.approx(0.0, abs=1e-6) and hit == pytest.approx(1.0)
    _, hit = contrast(known, jnp.roll(known, 1, 0), jnp.array(50.0), valid)
    assert hit == 0.0


def test_another_throat_moves_every_spectrum_and_not_the_level():
    cfg = FeatureConfig(num_mels=5)
    sound = np.random.default_rng(0).normal(size=(2, 3, cfg.dim)).astype(np.float32)
    made = np.asarray(other_throat(cfg, jnp.asarray(sound), jnp.array([1, -2])))
    np.testing.assert_array_equal(made[..., -1], sound[..., -1])
    old, new = (x[..., :-1].reshape(2, 3, cfg.hops, 5) for x in (sound, made))
    np.testing.assert_array_equal(new[0], old[0][..., [0, 0, 1, 2, 3]])
    np.testing.assert_array_equal(new[1], old[1][..., [2, 3, 4, 4, 4]])


def toy_clip(rng):
    """A mouth as open as the tone is high."""
    frames = 75
    slow = np.interp(np.arange(frames), np.arange(0, 84, 4), rng.uniform(size=21))
    pitch = np.repeat(300 + 2500 * slow, SAMPLES_PER_FRAME)
    samples = 0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000)
    curves = np.zeros((frames, CURVES))
    curves[:, 1::2] = 4 * (slow - 0.5)[:, None]
    return MotionClip(
        samples.astype(np.float32), curves.astype(np.float32), Controls.none(frames),
        np.full(frames, -1, np.int8), np.ones(CURVES, np.float32), True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_short_run_ranks_clips_it_has_not_heard(tmp_path):
    rng = np.random.default_rng(0)
    write_shard(tmp_path / "data" / "a.array_record", [toy_clip(rng) for _ in range(60)])
    cfg = SyncTrainConfig(
        model=SyncNetConfig(width=32, depth=1, embed=16),
        throat=0,
        data=MotionDataConfig(
            folders=(str(tmp_path / "data"),), batch=24, windows_per_clip=3, held_out=0.2,
            augment=AugmentConfig(noise=0.0, reverb=0.0, speed=0.0),
        ),
        optim=OptimConfig(lr=3e-3, steps=120, warmup=10, ema_decay=0.9),
        loop=loop.LoopConfig(log_every=60, picture_every=0, evaluate_every=0, checkpoint_every=0),
    )  # fmt: skip
    task = cfg.task()
    before = task.evaluate(task.init(jax.random.key(0)))
    outcome = loop.run(task, tmp_path / "run", steps=120, loop=cfg.loop)
    found = task.evaluate(outcome.state)
    assert found["true_over_shuffled"] == 1.0 and found["true_over_shifted"] > 0.9
    assert found["true"] - found["shuffled"] > before["true"] - before["shuffled"] + 0.1
    assert found["lag"] <= 1.0
