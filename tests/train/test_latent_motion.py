"""Stage 2 and its student in a learned space: no named weight anywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core import config as configs
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import SpaceConfig
from vasa_jax.core.types import FPS
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.data.shards import MotionClip, Shard, write_shard
from vasa_jax.generate import offline
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.synth.acted import toy_clips
from vasa_jax.train import loop
from vasa_jax.train.distill import DistillConfig
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig

pytestmark = pytest.mark.usefixtures("broadcasting")

SPACE = SpaceConfig(kind="latent", dynamics=6, origin="c" * 64)
MODEL = MotionModelConfig(
    space=SPACE,
    encoder=EncoderConfig(width=16, hidden=16, num_blocks=1),
    transformer=TransformerConfig(depth=1, width=16, num_heads=2),
    window=12,
    past=4,
)
QUIET = loop.LoopConfig(log_every=50, picture_every=0, evaluate_every=0, checkpoint_every=0)
MIXING = np.linspace(-3.0, 3.0, 6, dtype=np.float32)[None]  # of loudness into the code


def latent_clips(count: int = 6) -> list[MotionClip]:
    """The toy clips with a code in which all numbers say how loud it is, in units of its own."""
    out = []
    for clip in toy_clips(count):
        loud = np.abs(clip.samples).reshape(len(clip.motion), -1).max(1, keepdims=True) / 3276.7
        pose = np.asarray(clip.motion[:, :7])
        code = np.concatenate([pose, 20.0 * loud * MIXING + 5.0], 1).astype(np.float32)
        sound = clip.samples.astype(np.float32) / 32767
        out.append(clip._replace(samples=sound, motion=code, trust=np.ones(13, np.float32)))
    return out


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    write_shard(folder / "a.array_record", latent_clips(), SPACE)
    return folder


def config(records: Path, **changes) -> MotionTrainConfig:
    base = MotionTrainConfig(
        model=MODEL, data=MotionDataConfig(folders=(str(records),), batch=8), loop=QUIET,
        loss=MotionLossConfig(velocity=1.0, auxiliary=0.5),
        optim=OptimConfig(lr=1e-2, steps=100, warmup=5, ema_decay=0.9),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def run(broadcasting, records, tmp_path_factory):
    """A finished run of stage 2 and its report before and after."""
    del broadcasting
    cfg, folder = config(records), tmp_path_factory.mktemp("run")
    task = cfg.task()
    before = task.evaluate(task.init(jax.random.key(0)))
    done = loop.run(task, folder, steps=100, loop=QUIET, config=configs.to_json(cfg))
    return folder, task, before, task.evaluate(done.state)


def test_shards_say_what_their_motion_means(records):
    shard = Shard(records / "a.array_record")
    assert shard.space == SPACE
    np.testing.assert_allclose(shard.clip(0).motion, latent_clips()[0].motion, atol=0.05)


def test_it_learns_the_code_from_the_sound(run):
    _, _, before, after = run
    assert set(after) == {"pose_error", "dynamics_error"}
    assert after["dynamics_error"] < 0.6 * before["dynamics_error"]


def test_pictures_of_the_log_show_numbers_of_the_code(run):
    _, task, _, _ = run
    picture = task.pictures(task.init(jax.random.key(0)), 0)["curves"]
    assert picture.dtype == np.uint8 and len(np.unique(picture)) > 3


def test_it_generates_in_its_own_units(run):
    _, task, _, _ = run
    state = task.init(jax.random.key(0))
    feats = np.random.default_rng(0).uniform(0, 1, (30, MODEL.features.dim)).astype(np.float32)
    stats = task.stats()["motion"]
    defaults = GenerateDefaults.of({"steps": 2}, MODEL.motion_space)
    motion = offline.generate_motion(
        MODEL, state.params, stats, feats, sampler=defaults.sampler, steps=2, guidance={}
    )
    assert motion.shape == (30, 13) and (motion[:, 5] == 0).all()
    spread, wanted = motion[:, 7:].std(), np.asarray(stats["std"][7:]).mean()
    assert 0.2 * wanted < spread < 5 * wanted
    assert 30 / FPS > 1  # more than one window
    with pytest.raises(UserError, match="ddim_lids is for named lids"):
        offline.generate_motion(MODEL, state.params, stats, feats, sampler="ddim_lids", steps=2)
    with pytest.raises(UserError, match="ddim_lids is for named lids"):
        GenerateDefaults.of({"sampler": "ddim_lids"}, MODEL.motion_space)


def test_a_student_learns_from_it(run, records, tmp_path):
    folder, _, _, _ = run
    cfg = DistillConfig(
        teacher=str(folder), model=MODEL, substeps=1, reference_steps=2, loop=QUIET,
        data=MotionDataConfig(folders=(str(records),), batch=4),
        generate=GenerateDefaults(sampler="ddim", steps=2, guidance={}),
        optim=OptimConfig(lr=1e-2, steps=4, warmup=0),
    )  # fmt: skip
    task = cfg.task()
    done = loop.run(task, tmp_path / "student", steps=2, loop=QUIET, config=configs.to_json(cfg))
    report = task.evaluate(done.state)
    assert set(report) == {"distance", "distance_few_teacher"}
    assert np.isfinite(list(report.values())).all()
    assert task.stats()["motion"]["space"]["origin"] == "c" * 64


def test_data_of_another_space_is_refused_in_one_line(records, tmp_path):
    other = dataclasses.replace(MODEL, space=dataclasses.replace(SPACE, origin="d" * 64))
    with pytest.raises(UserError, match=r"the data of this run is in .*cccc.*dddd.* is wanted"):
        config(records, model=other).task()
    with pytest.raises(UserError, match="54 named weights"):
        config(records, model=dataclasses.replace(MODEL, space=SpaceConfig())).task()
    with pytest.raises(UserError, match=r"loss\.sealed is for named weights"):
        config(records, loss=MotionLossConfig(sealed=1.0)).task()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    write_shard(mixed / "a.array_record", latent_clips(1), SPACE)
    write_shard(mixed / "b.array_record", toy_clips(1))
    with pytest.raises(UserError, match="of several spaces"):
        config(mixed).task()
    assert MotionStats.unit(MODEL.motion_space).mean.shape == (13,)
