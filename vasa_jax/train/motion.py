"""Stage 2: train the motion model by denoising windows of motion under dropped conditions.

One step: draw t uniformly, add noise to the normalised motion of W frames, drop conditions as the
paper says, add a little noise to the past frames (so that the model forgives its own past), and
minimise the balanced x0 error plus what the audio encoder alone makes of what is heard (the mouth,
or all dynamics) and of the viseme. It works in any motion space (``core/space.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import POSE, Controls
from vasa_jax.data.corpus import MotionCorpus
from vasa_jax.data.folders import data_folder
from vasa_jax.data.motions import MotionDataConfig, MotionWindows
from vasa_jax.diffusion import samplers, times
from vasa_jax.diffusion.process import corrupt
from vasa_jax.losses.closures import unsealed
from vasa_jax.losses.diffusion import MotionLossConfig, masked_mean, motion_loss
from vasa_jax.motion.conditions import DropConfig, sample_keep, sample_tail
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModel, MotionModelConfig, init_params
from vasa_jax.motion.readout import Readout, readout_of
from vasa_jax.synth.acted import toy_clips
from vasa_jax.train.initial import initial_tables, initial_weights
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionTrainConfig:
    """Everything about a stage-2 run."""

    model: MotionModelConfig = MotionModelConfig()
    data: MotionDataConfig = MotionDataConfig()
    loss: MotionLossConfig = MotionLossConfig()
    drop: DropConfig = DropConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    past_noise: float = 0.1  # largest deviation of the noise on past motion, normalised units
    stats: str = ""  # a stats.json whose statistics to keep; empty: initial's, or the corpus's
    initial: str = ""  # run folder or release whose weights start this one
    seed: int = 0

    def task(self) -> MotionTask:
        return MotionTask(self)


def motion_tables(cfg: MotionTrainConfig, corpus: MotionCorpus) -> dict[str, Any]:
    """``stats.json``: "motion", and the "readout" where there is one.

    Weights only mean something with the statistics they were trained with: those come first.
    """
    if cfg.stats:
        path = data_folder(cfg.stats, "stats")
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"no statistics in {path}, which stats names: {error}") from error
    elif cfg.initial:
        _, table = initial_tables(cfg.initial)
    else:
        readout = {"readout": corpus.readout} if corpus.readout else {}
        return {"motion": corpus.stats().to_json(), **readout}
    return {name: table[name] for name in ("motion", "readout") if name in table}


class MotionTask:
    """The stage-2 task for ``train/loop.py``."""

    def __init__(self, cfg: MotionTrainConfig):
        self.cfg = cfg
        space = cfg.model.motion_space
        if cfg.loss.sealed and "lips" not in space.groups:
            raise UserError("loss.sealed is for named weights; in a latent space set it to 0")
        self.corpus = corpus_of(cfg.data)
        space.require(self.corpus.space, "the data of this run")
        self._tables = motion_tables(cfg, self.corpus)
        self.motion_stats = MotionStats.from_json(self._tables["motion"], space)
        self.readout = readout_of(space, self._tables)
        self.windows, self.held_out = (
            MotionWindows(
                cfg.data, corpus, cfg.model.features, window=cfg.model.window,
                past=cfg.model.past, lookahead=cfg.model.lookahead_frames,
            )
            for corpus in self.corpus.split(cfg.data.held_out)
        )  # fmt: skip
        self.tx = make_optimizer(cfg.optim)
        self.batch_size = cfg.data.batch

    def init(self, key: jax.Array) -> TrainState:
        return TrainState.create(init_params(self.cfg.model, key), self.tx, key)

    def initial_params(self, params: Any) -> Any:
        return initial_weights(self.cfg.initial, "motion", params)

    def batches(self, start_step: int, rows: slice | None = None) -> Iterator[dict[str, Any]]:
        return self.windows.batches(start_step, rows)

    def stats(self) -> dict[str, Any]:
        return {**self._tables, "motion": self.motion_stats.to_json(), "frames": self.corpus.frames}

    def update(
        self, state: TrainState, batch: dict[str, Any], key: jax.Array, constants: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        del constants
        batch = draw_window(self.cfg, batch, key)
        loss = functools.partial(drawn_loss, self.cfg, self.motion_stats)
        return descend(self.cfg.optim, self.tx, loss, state, batch)

    @functools.cached_property
    def _judged(self) -> dict[str, Any]:
        """A batch of held-out windows, made once."""
        return self.held_out.batch(2**31 - 1)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Few-step samples for held-out windows beside the truth: error of each group in normalised
        units, and of the lips' opening where it can be read (``motion/readout.py``)."""
        cfg, batch = self.cfg, self._judged
        keep = jnp.ones(len(batch["motion"]), bool)
        motion = sample_windows(cfg.model, state.ema, self.motion_stats, batch, keep)
        truth = batch["motion"][:, cfg.model.past :]
        valid = batch["motion_valid"][:, cfg.model.past :]
        return compare(self.motion_stats, self.readout, np.asarray(motion)[valid], truth[valid])

    def pictures(self, state: TrainState, step: int) -> dict[str, np.ndarray]:
        """Curves of a held-out window, made (dark) over true (light)."""
        cfg = self.cfg
        batch = jax.tree.map(lambda x: x[:4], self._judged)
        keep = jnp.ones(len(batch["motion"]), bool)
        made = np.asarray(sample_windows(cfg.model, state.ema, self.motion_stats, batch, keep))
        return {
            "curves": draw_curves(
                self.motion_stats.space, made, batch["motion"][:, cfg.model.past :]
            )
        }


def window_loss(
    cfg: MotionTrainConfig,
    stats: MotionStats,
    params: Any,
    batch: dict[str, Any],
    key: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The training objective on one batch (``data.motions.MotionWindows.batch``)."""
    return drawn_loss(cfg, stats, params, draw_window(cfg, batch, key))


def draw_window(cfg: MotionTrainConfig, batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """``batch`` with all random numbers that its loss needs, rows on the first axis, as "drawn"."""
    model, k, w = cfg.model, cfg.model.past, cfg.model.window
    keys = jax.random.split(key, 6)
    size, _, width = batch["motion"].shape
    tail_audio, tail_motion = sample_tail(keys[0], size, w, model.lookahead_frames, cfg.drop)
    level = cfg.past_noise * jax.random.uniform(keys[2], (size, 1, 1))
    drawn = {
        "tail_audio": tail_audio,
        "tail_motion": tail_motion,
        "keep": sample_keep(keys[1], size, cfg.drop),
        "past_noise": level * jax.random.normal(keys[3], (size, k, width)),
        "t": stratified(keys[4], size),
        "noise": jax.random.normal(keys[5], (size, w, width)),
    }
    return {**batch, "drawn": drawn}


def stratified(key: jax.Array, size: int) -> jax.Array:
    """Times (size,), one in each of ``size`` equal parts of [0, 1], in random order.

    Every batch covers the times evenly, which lowers the loss's variance. In order of the rows,
    windows of one stretch of sound, which are neighbours, would always get neighbouring times, and
    the first rows of a batch (one device's share, or one process's) always the smallest.
    """
    part = jax.random.permutation(jax.random.fold_in(key, 1), size)
    return (part.astype(jnp.float32) + jax.random.uniform(key, (size,))) / size


def drawn_loss(
    cfg: MotionTrainConfig, stats: MotionStats, params: Any, batch: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """``window_loss`` with the random numbers of ``draw_window``: a mean over the rows."""
    model, k, w = cfg.model, cfg.model.past, cfg.model.window
    drawn, keep = batch["drawn"], batch["drawn"]["keep"]
    target = stats.normalize(batch["motion"])
    heard = batch["audio_valid"][:, k:] & drawn["tail_audio"]
    audio_valid = jnp.asarray(batch["audio_valid"]).at[:, k:].set(heard)
    motion_valid = batch["motion_valid"][:, k:] & drawn["tail_motion"]
    past = target[:, :k] + drawn["past_noise"]
    t, noise = drawn["t"], drawn["noise"]
    clean = target[:, k:]
    noisy = corrupt(model.make_schedule(), clean, noise, t)
    out: Any = MotionModel(model).apply(
        {"params": params}, noisy, t,
        features_BAD=batch["features"], audio_valid_BA=audio_valid, past_BKM=past,
        past_valid_BK=batch["motion_valid"][:, :k], motion_valid_BT=motion_valid,
        controls=Controls(*batch["controls"]), keep=keep,
    )  # fmt: skip
    x0, guess, logits = out
    # What comes after the cut of the audio is guesswork: not trained.
    counted = motion_valid & audio_valid[:, k : k + w]
    space = stats.space
    per_example, terms = motion_loss(cfg.loss, space, x0, clean, counted, batch["trust"])
    total = per_example.mean()
    terms = {**terms, "x0": total}
    if cfg.loss.sealed:
        told = counted & keep["audio"][:, None]  # without a sound nobody knows when to close
        gap = unsealed(stats.denormalize(x0), batch["motion"][:, k:], told, batch["trust"])
        terms["unsealed_cm2"] = gap.mean()
        total = total + cfg.loss.sealed * terms["unsealed_cm2"]
    heard = batch["motion_valid"] & audio_valid[:, : k + w] & keep["audio"][:, None]
    heard = heard.at[:, :k].set(heard[:, :k] & keep["past"][:, None])
    if cfg.loss.auxiliary:
        squared = jnp.square(guess - target[..., space.heard_numbers]).mean(-1)
        terms["auxiliary"] = masked_mean(squared, heard).mean()
        total = total + cfg.loss.auxiliary * terms["auxiliary"]
    if cfg.loss.viseme and logits is not None:
        known = heard & (batch["viseme"] >= 0)
        label = jnp.maximum(batch["viseme"], 0)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        right = (logits.argmax(-1) == label).astype(jnp.float32)
        terms["viseme"] = masked_mean(entropy, known).mean()
        terms["viseme_right"] = (right * known).sum() / jnp.maximum(known.sum(), 1)
        total = total + cfg.loss.viseme * terms["viseme"]
    return total, {**terms, "loss": total}


def corpus_of(cfg: MotionDataConfig) -> MotionCorpus:
    """The corpus of a config; the toy one when it names no folder."""
    if cfg.folders:
        return MotionCorpus(cfg.folders, cfg.shares)
    return MotionCorpus.of(toy_clips())


@functools.partial(jax.jit, static_argnums=(0,))
def _sample(model: MotionModelConfig, params: Any, batch: dict[str, Any], past: jax.Array, keep):
    k, w = model.past, model.window
    net = MotionModel(model)
    variables = {"params": params}
    drops = {"audio": keep}
    tokens = net.apply(variables, batch["features"], batch["audio_valid"], drops, method="encode")

    def denoise(x: jax.Array, t: jax.Array) -> Any:
        return net.apply(
            variables, x, jnp.broadcast_to(t, (x.shape[0],)), method="denoise",
            audio_BAD=tokens, past_BKM=past, past_valid_BK=batch["motion_valid"][:, :k],
            motion_valid_BT=batch["motion_valid"][:, k:], controls=Controls(*batch["controls"]),
            keep=drops,
        )  # fmt: skip

    schedule = model.make_schedule()
    x = jax.random.normal(jax.random.key(0), (past.shape[0], w, past.shape[-1]))
    return samplers.sample(
        samplers.SAMPLERS["ddim"], schedule, denoise, x, times.uniform(schedule, 10)
    )


def sample_windows(
    model: MotionModelConfig,
    params: Any,
    stats: MotionStats,
    batch: dict[str, Any],
    keep_audio: jax.Array,
) -> jax.Array:
    """Physical motion ``(B, W, M)`` for the windows of a batch: ten DDIM steps, no guidance."""
    past = stats.normalize(batch["motion"][:, : model.past])
    return stats.denormalize(_sample(model, params, batch, past, keep_audio))


def compare(
    stats: MotionStats, readout: Readout | None, made_NM: np.ndarray, true_NM: np.ndarray
) -> dict[str, float]:
    """Frames of generated motion beside true ones, as ``MotionTask.evaluate`` reports them."""
    space, report = stats.space, {}
    if readout is None:
        error = np.abs(made_NM - true_NM) / stats.std
        for name, index in space.groups.items():
            report[f"{name}_error"] = float(error[:, list(index)].mean())
        return report
    made, true = readout.aperture(made_NM), readout.aperture(true_NM)
    correlation = float(np.corrcoef(made, true)[0, 1]) if made.std() > 0 else 0.0
    return {
        "aperture_error": float(np.abs(made - true).mean()),
        "aperture_correlation": correlation,
        "aperture_spread": float(made.std() / max(true.std(), 1e-6)),
    }


def draw_curves(
    space: MotionSpace, made: np.ndarray, true: np.ndarray, *, height: int = 48
) -> np.ndarray:
    """Rows of curves over frames for windows ``(B, W, M)``, ``space.shown``; a uint8 picture."""
    batch, frames, _ = made.shape
    scale = 4
    canvas = np.full((len(space.shown) * height, batch * frames * scale, 3), 255, np.uint8)
    for r, name in enumerate(space.shown):
        index = space.index[name]
        low, high = float(space.low[index]) - 0.05, float(space.high[index])
        if not np.isfinite(high):
            farthest = 0.0 if index < POSE.stop else float(np.abs(true[..., index]).max())
            low, high = -max(0.4, farthest), max(0.4, farthest)  # rad, or units of the code
        for values, colour in ((true, (150, 190, 255)), (made, (20, 20, 20))):
            y = values[..., index].reshape(-1)
            x = np.arange(len(y) * scale)
            level = np.interp(x / scale, np.arange(len(y)), y)
            row = (1 - np.clip((level - low) / (high - low), 0, 1)) * (height - 5) + 2
            for offset in (0, 1):
                canvas[r * height + row.astype(int) + offset, x] = colour
        canvas[(r + 1) * height - 1] = 220
    canvas[:, :: frames * scale] = 200
    return canvas
