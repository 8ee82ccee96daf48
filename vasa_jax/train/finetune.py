"""One person's clips make a release more like them: what each of its three runs is.

A run starts from the base release's weights and takes its model, so the result fits where the base
did. Steps are few and the rate is low: minutes of one person teach how they look and move, not how
to talk. Losses, augmentation and dropped conditions are those that the bundled release was trained
with (``configs/``).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vasa_jax.checkpoint.release import Release
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.data.faces import FacePairsConfig
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.face.faces import config_of, kind_of
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.train.distill import DistillConfig
from vasa_jax.train.face import FaceTrainConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig

# As in configs/motion_lite.py.
LOSS = MotionLossConfig(
    groups={"pose": 0.5, "gaze": 0.25, "lips": 1.0, "mouth": 0.25, "lids": 0.3, "upper": 0.2},
    velocity=1.0, sealed=4.0, auxiliary=0.5, viseme=0.1,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How long each run is; 0 leaves it out, and that part stays the base's."""

    face_steps: int = 400
    motion_steps: int = 500
    student_steps: int = 200
    face_lr: float = 2e-4
    motion_lr: float = 1e-4
    student_lr: float = 1e-4
    seed: int = 0


def _loop(steps: int) -> LoopConfig:
    every = max(1, steps // 4)
    return LoopConfig(
        log_every=20, picture_every=every, evaluate_every=every, checkpoint_every=100, keep=1,
        tensorboard=False,
    )  # fmt: skip


def _optim(lr: float, steps: int, **others: float) -> OptimConfig:
    return OptimConfig(
        lr=lr, steps=steps, warmup=min(20, steps // 4), decay="cosine", final_fraction=0.1,
        ema_decay=0.98, **others,  # type: ignore[arg-type]
    )  # fmt: skip


def face_run(cfg: FinetuneConfig, base: Release, source: str, clips: Path) -> FaceTrainConfig:
    """Stage 1 on a folder of clips. UserError for a base whose face is none of named weights."""
    table = base.config["face"]
    if kind_of(table) != "warp":
        raise UserError(
            f"{source} has a full face, which this recipe does not know; train it on with "
            "vasa-jax train and initial=RUN"
        )
    model = config_of(table)
    return FaceTrainConfig(
        seed=cfg.seed, model=model, batch=4, head=str(clips / "head.npz"), initial=source,
        data=FacePairsConfig(
            folder=str(clips.absolute().parent), shares=((clips.absolute().name, 1.0),),
            size=model.size, held_out=0,
        ),
        optim=_optim(cfg.face_lr, cfg.face_steps, weight_decay=1e-4, clip_norm=2.0),
        loop=_loop(cfg.face_steps),
    )  # fmt: skip


def motion_run(cfg: FinetuneConfig, base: Release, source: str, motions: Path) -> MotionTrainConfig:
    """Stage 2 on records that ``vasa-jax encode`` made of the clips."""
    return MotionTrainConfig(
        seed=cfg.seed, model=_motion_model(base), loss=LOSS, initial=source,
        data=MotionDataConfig(folders=(str(motions),), batch=16, held_out=0.1),
        optim=_optim(cfg.motion_lr, cfg.motion_steps), loop=_loop(cfg.motion_steps),
    )  # fmt: skip


def student_run(
    cfg: FinetuneConfig, base: Release, source: str, motions: Path, teacher: Path
) -> DistillConfig:
    """The few-step student of the new stage 2, from the base's own student on."""
    student = base.config["student"]
    guided = student.get("heard_guidance", student.get("mouth_guidance", 1.5))
    return DistillConfig(
        seed=cfg.seed, model=_motion_model(base), teacher=str(teacher), student=source,
        loss=dataclasses.replace(LOSS, auxiliary=0.0, viseme=0.0), heard_guidance=guided,
        data=MotionDataConfig(folders=(str(motions),), batch=8, held_out=0.1),
        optim=_optim(cfg.student_lr, cfg.student_steps, weight_decay=0.0),
        loop=_loop(cfg.student_steps),
    )  # fmt: skip


def _motion_model(base: Release) -> MotionModelConfig:
    table = base.config["motion"]
    return from_json(MotionModelConfig, table.get("model", table))
