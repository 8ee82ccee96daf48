"""Few steps: teach a copy of a trained motion model to take the teacher's many steps in a few.

The student samples on a fixed grid ``1 = t_0 > ... > t_S = 0`` with DDIM and no guidance. On
segment i the teacher, guided by equation 2 of the paper, takes n small deterministic steps from the
same state ``x`` at ``t = t_i`` and lands at ``y`` at ``s = t_{i+1}``. One DDIM step from ``x`` with
the constant guess ``x0`` lands at

    alpha_s x0 + (sigma_s / sigma_t) (x - alpha_t x0)

which is linear in ``x0``; it is ``y`` exactly when

    x0 = (y - (sigma_s / sigma_t) x) / (alpha_s - (sigma_s / sigma_t) alpha_t)                  (1)

and that is what the student's output is regressed on, with the weight ``min(max(SNR(t), 1), cap)``:
Salimans & Ho 2022 (arXiv 2202.00512), whose target and truncated SNR these are; the cap is that of
Hang et al. 2023 (arXiv 2303.09556). Their repeated halving is not needed where the grid is known
from the start: every segment is distilled at once, straight from the teacher.

Where do the states come from? Not from noised data, but from the student's own way down the grid
(gradients stop between steps), as in imitation learning (Ross et al. 2011, arXiv 1011.0686):

- they are what the student will meet: the first noise of what is heard has a lower temperature
  (``generate/rolling.py``), which no noised data has, and an early error is met by later steps;
- it costs nothing: the S passes whose outputs are trained are the passes that make the states.

A consistency model (Song et al. 2023) would need no inner steps, but its target is the student
itself: errors wander from t = 0 up the grid and training is longer. Here each target is the
teacher's own. Per example a step costs S passes forward and backward and ``2 S n`` teacher passes.

Conditions are dropped only as far as generation drops them: controls often (mostly nobody asks),
the past at a beginning, the end of the sound in live windows; sound rarely, for guidance is baked
in and a branch without it no longer needed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import Controls
from vasa_jax.data.motions import MotionDataConfig, MotionWindows
from vasa_jax.diffusion import samplers
from vasa_jax.diffusion.samplers import SAMPLERS, Denoiser, Step
from vasa_jax.diffusion.schedules import Schedule
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.losses.closures import unsealed
from vasa_jax.losses.diffusion import MotionLossConfig, motion_loss
from vasa_jax.motion.conditions import DropConfig, sample_keep, sample_tail
from vasa_jax.motion.guided import Seen, guided_denoiser
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params
from vasa_jax.motion.readout import readout_of
from vasa_jax.train.initial import initial_weights, load_teacher
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.motion import corpus_of, draw_curves
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState

UNGUIDED = (0.0, 0.0)  # scales of a student


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Everything about a distillation. ``generate`` is how the student is to be sampled; it goes
    into the release."""

    teacher: str = ""  # run folder or release of the motion model to distil
    student: str = ""  # run folder or release whose student goes on; empty: begin as the teacher
    model: MotionModelConfig = MotionModelConfig()  # the teacher's, which the student keeps
    data: MotionDataConfig = MotionDataConfig()
    loss: MotionLossConfig = MotionLossConfig()
    drop: DropConfig = DropConfig(condition=0.4, past=0.15)  # condition: each of the controls
    drop_audio: float = 0.02
    generate: GenerateDefaults = GenerateDefaults(sampler="ddim", steps=4, guidance={})
    audio_guidance: float = 0.5  # the teacher's scale in equation 2
    heard_guidance: float = 0.5  # the same for what is heard (the mouth); both 0: no second branch
    teacher_sampler: str = "dpmpp_2m"  # deterministic
    substeps: int = 3  # n: teacher's steps in each of the student's
    temperature: tuple[float, float] = (0.0, 0.4)  # of the first noise of what is heard, drawn
    snr_cap: float = 5.0
    reference_steps: int = 50  # DDIM steps of the teacher that evaluation compares with
    past_noise: float = 0.1  # as in MotionTrainConfig
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generate.sampler != "ddim" or self.generate.guidance:
            raise ValueError("a student is sampled with ddim and without guidance")
        if SAMPLERS[self.teacher_sampler].order == 0 or self.substeps < 1:
            raise ValueError("the teacher needs a deterministic sampler and at least one substep")

    @property
    def scales(self) -> tuple[float, float]:
        """Guidance of the teacher: of what the sound does not decide, and of what is heard."""
        return self.audio_guidance, self.heard_guidance

    def task(self) -> DistillTask:
        return DistillTask(self)


# --- the method, for any denoiser ---------------------------------------------------------------


def one_step_target(
    schedule: Schedule, x: jax.Array, t: jax.Array, s: jax.Array, landed: jax.Array
) -> jax.Array:
    """Equation (1): the x0 with which one DDIM step takes ``x`` at t to ``landed`` at s < t.

    ``x`` and ``landed`` are shaped alike; the times are scalars.
    """
    ratio = schedule.sigma(s) / schedule.sigma(t)
    return (landed - ratio * x) / (schedule.alpha(s) - ratio * schedule.alpha(t))


def rollout(
    schedule: Schedule, denoise: Denoiser, x: jax.Array, times: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """DDIM from ``x (...)`` along ``times (S + 1,)``: states and the x0 said there, ``(S, ...)``.

    The states carry no gradient, so each x0 is trained for its own step alone.
    """
    ddim = SAMPLERS["ddim"]

    def body(x: jax.Array, segment: tuple[jax.Array, jax.Array]):
        t, s = segment
        x = jax.lax.stop_gradient(x)
        x0 = denoise(x, t)
        new = ddim(schedule, samplers.State(x), lambda x, t: x0, t, s, jnp.zeros_like(x)).x
        return new, (x, x0)

    _, (states, said) = jax.lax.scan(body, x, (times[:-1], times[1:]))
    return states, said


def teacher_targets(
    schedule: Schedule, teacher: Denoiser, step: Step, states: jax.Array, times: jax.Array,
    substeps: int,
) -> jax.Array:  # fmt: skip
    """What the student should have said at ``states (S, ...)``: where the teacher goes in
    ``substeps`` equal steps on each segment of ``times (S + 1,)``, as x0 of one step."""
    share = jnp.linspace(0.0, 1.0, substeps + 1, dtype=times.dtype)[None]
    inner = times[:-1, None] * (1.0 - share) + times[1:, None] * share

    def cross(x: jax.Array, grid: jax.Array) -> jax.Array:
        landed = samplers.sample(step, schedule, teacher, x, grid)
        return one_step_target(schedule, x, grid[0], grid[-1], landed)

    return jax.lax.stop_gradient(jax.vmap(cross)(states, inner))


def snr_weights(schedule: Schedule, times: jax.Array, cap: float) -> jax.Array:
    """Weight of each segment ``(S,)`` by the signal-to-noise ratio at its beginning."""
    return jnp.clip(jnp.exp(schedule.log_snr(times[:-1])), 1.0, cap)


# --- the motion model ---------------------------------------------------------------------------


def look(
    model: MotionModelConfig, past: jax.Array, batch: dict[str, Any], keep: dict[str, jax.Array]
) -> Seen:
    """What the network sees of a batch of windows, given its normalised past ``(B, K, M)``."""
    k = model.past
    return Seen(
        features=batch["features"],
        audio_valid=batch["audio_valid"],
        past=past,
        past_valid=batch["motion_valid"][:, :k],
        motion_valid=batch["motion_valid"][:, k:],
        controls=Controls(*batch["controls"]),
        keep=keep,
    )


def audio_scale(space: MotionSpace, scale: float, heard: float) -> dict[str, jax.Array]:
    """Guidance by the sound alone, (1, 1, M); without a branch where both scales are 0.

    What is heard has one of its own: more guidance closes lips that should be closed, but makes a
    head tremble that the sound says little about.
    """
    if not scale and not heard:
        return {}
    return {"audio": jnp.asarray(space.per_dim({"heard": heard}, default=scale)[None, None])}


def first_noise(
    space: MotionSpace, key: jax.Array, shape: tuple[int, int], temperature: jax.Array
) -> jax.Array:
    """Noise ``(B, T, M)`` for ``shape (B, T)`` that sampling starts from, that of what is heard of
    deviation ``temperature (B,)`` (the cosine schedule begins with noise alone, so this is the
    state at t = 1)."""
    scale = jnp.ones((shape[0], 1, space.dim)).at[..., space.heard_numbers].set(
        temperature[:, None, None]
    )  # fmt: skip
    return scale * jax.random.normal(key, (*shape, space.dim))


def draw_windows(cfg: DistillConfig, batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """``batch`` with all random numbers that its loss needs, rows on the first axis, as "drawn"."""
    model, k, w = cfg.model, cfg.model.past, cfg.model.window
    size, _, width = batch["motion"].shape
    keys = jax.random.split(key, 7)
    tail_audio, tail_motion = sample_tail(keys[0], size, w, model.lookahead_frames, cfg.drop)
    keep = sample_keep(keys[1], size, cfg.drop)
    keep["audio"] = jax.random.uniform(keys[2], (size,)) >= cfg.drop_audio
    level = cfg.past_noise * jax.random.uniform(keys[3], (size, 1, 1))
    low, high = cfg.temperature
    temperature = low + (high - low) * jax.random.uniform(keys[5], (size,))
    drawn = {
        "tail_audio": tail_audio,
        "tail_motion": tail_motion,
        "keep": keep,
        "past_noise": level * jax.random.normal(keys[4], (size, k, width)),
        "noise": first_noise(model.motion_space, keys[6], (size, w), temperature),
    }
    return {**batch, "drawn": drawn}


def distill_loss(
    cfg: DistillConfig, stats: MotionStats, teacher: Any, params: Any, batch: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The objective on one batch (``MotionWindows.batch`` with ``draw_windows``), a mean over its
    rows. Of its motion (B, K + W, M) the past is used, as context, and where lips are shut."""
    model, k, w = cfg.model, cfg.model.past, cfg.model.window
    drawn = batch["drawn"]
    past = stats.normalize(batch["motion"])[:, :k] + drawn["past_noise"]
    seen = look(model, past, batch, drawn["keep"])
    heard = jnp.asarray(seen.audio_valid)
    seen = seen._replace(
        audio_valid=heard.at[:, k:].set(heard[:, k:] & drawn["tail_audio"]),
        motion_valid=seen.motion_valid & drawn["tail_motion"],
    )
    x = drawn["noise"]

    schedule = model.make_schedule()
    times = TIME_GRIDS[cfg.generate.grid](schedule, cfg.generate.steps)
    states, said = rollout(schedule, guided_denoiser(model, params, seen, {}), x, times)
    wanted = teacher_targets(
        schedule, guided_denoiser(model, teacher, seen, audio_scale(stats.space, *cfg.scales)),
        SAMPLERS[cfg.teacher_sampler], states, times, cfg.substeps,
    )  # fmt: skip
    # What comes after the cut of the sound is guesswork that the teacher was not trained on.
    counted = seen.motion_valid & seen.audio_valid[:, k : k + w]
    per_step, terms = jax.vmap(
        lambda x0, y: motion_loss(cfg.loss, stats.space, x0, y, counted), out_axes=(0, 0)
    )(said, wanted)
    per_step = per_step.mean(1)
    loss = (per_step * snr_weights(schedule, times, cfg.snr_cap)).mean()
    terms = {name: term.mean() for name, term in terms.items()}
    if cfg.loss.sealed:
        told = counted & drawn["keep"]["audio"][:, None]
        truth = batch["motion"][:, k:]
        gaps = jax.vmap(
            lambda x0: unsealed(stats.denormalize(x0), truth, told, batch["trust"]).mean()
        )(said)
        terms["unsealed_cm2"] = gaps[-1]  # of what is shown
        loss = loss + cfg.loss.sealed * gaps.mean()
    return loss, {**terms, **{f"step_{i}": v for i, v in enumerate(per_step)}, "loss": loss}


class DistillTask:
    """Distillation for ``train/loop.py``. The teacher is read from where it lies, never saved."""

    def __init__(self, cfg: DistillConfig):
        self.cfg = cfg
        self.teacher, self.teacher_stats = load_teacher(cfg.teacher, cfg.model)
        space = cfg.model.motion_space
        self.motion_stats = MotionStats.from_json(self.teacher_stats["motion"], space)
        self.readout = readout_of(space, self.teacher_stats)
        corpus = corpus_of(cfg.data)
        space.require(corpus.space, "the data of this run")
        self.windows, self.held_out = (
            MotionWindows(
                cfg.data, corpus, cfg.model.features, window=cfg.model.window,
                past=cfg.model.past, lookahead=cfg.model.lookahead_frames,
            )
            for corpus in corpus.split(cfg.data.held_out)
        )  # fmt: skip
        self.tx = make_optimizer(cfg.optim)
        self.batch_size, self.constants = cfg.data.batch, self.teacher
        self._known: dict[str, np.ndarray] = {}

    def init(self, key: jax.Array) -> TrainState:
        return TrainState.create(init_params(self.cfg.model, key), self.tx, key)

    def initial_params(self, params: Any) -> Any:
        if self.cfg.student:
            return initial_weights(self.cfg.student, "student", params)
        return jax.tree.map(jnp.copy, self.teacher)  # the student's are donated at every step

    def batches(self, start_step: int, rows: slice | None = None) -> Iterator[dict[str, Any]]:
        return self.windows.batches(start_step, rows)

    def stats(self) -> dict[str, Any]:
        return self.teacher_stats

    def update(
        self, state: TrainState, batch: dict[str, Any], key: jax.Array, constants: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = draw_windows(self.cfg, batch, key)
        loss = functools.partial(distill_loss, self.cfg, self.motion_stats, constants)
        return descend(self.cfg.optim, self.tx, loss, state, batch)

    @functools.cached_property
    def _judged(self) -> dict[str, Any]:
        """A batch of held-out windows, made once."""
        return self.held_out.batch(2**31 - 1)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """How far few steps are from the guided teacher's many, from the same noise.

        ``distance`` is the training loss's distance of samples, beside that of the teacher in as
        few steps; ``aperture_*`` concern the lips' opening, against the truth, ``lids_spread`` the
        deviation of the lids, both where they can be read (``motion/readout.py``); names
        ending in ``_teacher`` are the many-step teacher's.
        """
        cfg, few, batch = self.cfg, self.cfg.generate.steps, self._judged
        valid = jnp.asarray(batch["motion_valid"][:, cfg.model.past :])
        if not self._known:
            guided = functools.partial(self._sample, self.teacher, batch, cfg.scales)
            self._known = {"many": guided(cfg.reference_steps), "few": guided(few)}
        many = self._known["many"]
        made = self._sample(state.ema, batch, UNGUIDED, few)

        def distance(x: np.ndarray) -> float:
            pair = jnp.asarray(x), jnp.asarray(many)
            return float(motion_loss(cfg.loss, cfg.model.motion_space, *pair, valid)[0].mean())

        def physical(x: np.ndarray) -> np.ndarray:
            return np.asarray(self.motion_stats.denormalize(jnp.asarray(x)))

        report = {"distance": distance(made), "distance_few_teacher": distance(self._known["few"])}
        keep = np.asarray(valid)
        if self.readout is None:
            return report
        truth = self.readout.aperture(batch["motion"][:, cfg.model.past :])
        for suffix, x in (("", made), ("_teacher", many)):
            lips, lids = self.readout.aperture(physical(x)), self.readout.lids(physical(x))
            spread = lips[keep].std()
            report[f"aperture_error{suffix}"] = float(np.abs(lips - truth)[keep].mean())
            report[f"aperture_correlation{suffix}"] = (
                float(np.corrcoef(lips[keep], truth[keep])[0, 1]) if spread > 0 else 0.0
            )
            report[f"lids_spread{suffix}"] = float(lids[keep].std())
        return report

    def pictures(self, state: TrainState, step: int) -> dict[str, np.ndarray]:
        """Curves of held-out windows: the student's (dark) over the teacher's (light)."""
        cfg = self.cfg
        batch = jax.tree.map(lambda x: x[:4], self._judged)
        student = self._sample(state.ema, batch, UNGUIDED, cfg.generate.steps)
        teacher = self._sample(self.teacher, batch, cfg.scales, cfg.reference_steps)
        made, true = (
            np.asarray(self.motion_stats.denormalize(jnp.asarray(x))) for x in (student, teacher)
        )
        return {"curves": draw_curves(self.motion_stats.space, made, true)}

    def _sample(
        self, params: Any, batch: dict[str, Any], scales: tuple[float, float], steps: int
    ) -> np.ndarray:
        past = self.motion_stats.normalize(jnp.asarray(batch["motion"][:, : self.cfg.model.past]))
        temperature = jnp.full(len(past), self.cfg.generate.temperature)
        return np.asarray(
            sample_windows(
                self.cfg.model,
                params,
                past,
                batch,
                temperature,
                scales=scales,
                grid=self.cfg.generate.grid,
                steps=steps,
            )  # fmt: skip
        )


@functools.partial(jax.jit, static_argnames=("model", "scales", "grid", "steps"))
def sample_windows(
    model: MotionModelConfig, params: Any, past: jax.Array, batch: dict[str, Any],
    temperature: jax.Array, *, scales: tuple[float, float], grid: str, steps: int,
) -> jax.Array:  # fmt: skip
    """Normalised motion ``(B, W, M)`` by DDIM, always from the same noise."""
    schedule = model.make_schedule()
    space = model.motion_space
    x = first_noise(space, jax.random.key(0), (past.shape[0], model.window), temperature)
    denoise = guided_denoiser(
        model, params, look(model, past, batch, {}), audio_scale(space, *scales)
    )
    return samplers.sample(
        SAMPLERS["ddim"], schedule, denoise, x, TIME_GRIDS[grid](schedule, steps)
    )
