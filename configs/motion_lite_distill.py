"""Stage 2, lite size, in four steps: a student of ``configs/motion_lite.py`` without guidance.

A batch of 8 windows is 32 segments to learn from. One step takes 2.7 s of one CPU core (measured
with 16: 5.3 s), most of it the teacher's; 3000 steps would be two and a quarter hours. The whole
run has not been done yet.

Data     as in configs/motion_lite.py
Run      vasa-jax train --config configs/motion_lite_distill.py --workdir runs/distill \
             --set teacher=lite                       (a release, or the run folder of the teacher)
Release  vasa-jax release build --motion runs/distill ...          (brings sampler, steps and grid)
Smoke    vasa-jax train --config configs/motion_lite.py:smoke --workdir runs/smoke
         vasa-jax train --config configs/motion_lite_distill.py:smoke --workdir runs/smoke_distill \
             --set teacher=runs/smoke                                                   (a minute)
"""

import dataclasses

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.generate.model import MotionModelConfig
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.train.distill import DistillConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig

VARIANTS = ("base", "smoke")


def get_config(variant: str = "base") -> DistillConfig:
    base = DistillConfig(
        model=MotionModelConfig(
            encoder=EncoderConfig(width=256, hidden=384, num_blocks=3),
            transformer=TransformerConfig(depth=4, width=256, num_heads=4, audio_tokens=False),
            num_visemes=21,
        ),
        data=MotionDataConfig(
            folders=(
                "$VASA_DATA/motion_synthetic",
                "$VASA_DATA/motion_natural",
                "$VASA_DATA/motion_grid",
                "$VASA_DATA/motion_grid_video",
            ),
            shares=(0.25, 0.4, 0.1, 0.25),
            batch=8,
        ),
        loss=MotionLossConfig(
            pose=0.5, gaze=0.25, lips=1.0, mouth=0.25, lids=0.3, upper=0.2, velocity=1.0
        ),
        # No decay of weights: it would shrink the heads that only the teacher's training used.
        optim=OptimConfig(lr=2e-4, steps=3000, warmup=50, weight_decay=0.0, ema_decay=0.995),
        loop=LoopConfig(log_every=20, picture_every=500, evaluate_every=250, checkpoint_every=250),
    )
    if variant == "base":
        return base
    if variant == "smoke":
        return dataclasses.replace(
            base,
            model=MotionModelConfig(
                encoder=EncoderConfig(width=32, hidden=48, num_blocks=2),
                transformer=TransformerConfig(depth=2, width=32, num_heads=2),
                window=24,
                past=6,
                num_visemes=2,
            ),
            data=MotionDataConfig(batch=8),
            optim=OptimConfig(lr=1e-3, steps=150, warmup=10, weight_decay=0.0, ema_decay=0.95),
            loop=LoopConfig(log_every=10, picture_every=0, evaluate_every=50, checkpoint_every=0),
        )
    raise KeyError(variant)
