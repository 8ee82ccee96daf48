"""Stage 2, lite size, in four steps: a student of ``configs/motion_lite.py`` without guidance.

A batch of 8 windows is 32 segments to learn from. One step takes 2.4 s of one CPU core, most of it
the teacher's; 2000 steps take an hour and a half. Expected: `distance` (held-out windows against 50
guided steps of the teacher) from 0.08 of the teacher's own four steps to 0.011, lids as lively as
the teacher's. That was without `loss.sealed`; with it, a run of 1500 steps ended at 0.059, the
teacher's own four steps having 0.040.

The bundled student learned in three runs: 2000 steps with the mouth guided as the rest (--set
heard_guidance=0.5), 800 with what is the default now, and 1500 of a better teacher, each from the
weights before it:

         vasa-jax train --config configs/motion_lite_distill.py --workdir runs/student \
             --set teacher=runs/motion_lite --set student=lite --set optim.steps=1500

Data     as in configs/motion_lite.py
Run      vasa-jax train --config configs/motion_lite_distill.py --workdir runs/distill \
             --set teacher=lite                       (a release, or the run folder of the teacher)
Release  vasa-jax release build --base lite --student runs/distill -o my_release
             (brings sampler, steps and grid)
Smoke    vasa-jax train --config configs/motion_lite.py:smoke --workdir runs/smoke
         vasa-jax train --config configs/motion_lite_distill.py:smoke --workdir runs/smoke_distill \
             --set teacher=runs/smoke                                                   (a minute)
"""

import dataclasses
from pathlib import Path

from vasa_jax.core.config import load_config
from vasa_jax.core.mesh import MeshConfig
from vasa_jax.train.distill import DistillConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig

VARIANTS = ("base", "smoke")

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices


def get_config(variant: str = "base") -> DistillConfig:
    if variant not in VARIANTS:
        raise KeyError(variant)
    # The student is the teacher's network and sees the teacher's data.
    teacher = load_config(f"{Path(__file__).with_name('motion_lite.py')}:{variant}")
    base = DistillConfig(
        model=teacher.model,
        data=dataclasses.replace(teacher.data, batch=8),
        loss=dataclasses.replace(teacher.loss, auxiliary=0.0, viseme=0.0),  # the encoder's heads
        heard_guidance=1.5,  # closes more lips on p, b, m; on a whole head it would be tremor
        # No decay of weights: it would shrink the heads that only the teacher's training used.
        optim=OptimConfig(lr=2e-4, steps=2000, warmup=50, weight_decay=0.0, ema_decay=0.995),
        loop=LoopConfig(log_every=20, picture_every=500, evaluate_every=250, checkpoint_every=250),
    )
    if variant == "base":
        return base
    return dataclasses.replace(
        base,
        optim=OptimConfig(lr=1e-3, steps=150, warmup=10, weight_decay=0.0, ema_decay=0.95),
        loop=LoopConfig(
            log_every=10, picture_every=0, evaluate_every=50, checkpoint_every=0, mesh=ANY
        ),
    )
