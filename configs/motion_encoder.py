"""``E_motion``: landmarks to expression weights and gaze, trained on the head model alone.

About ten minutes on one CPU core; 3.9 MFLOP per example, forward and backward (train/cost.py).

Data     python -m vasa_jax.prepare.shards synthetic $VASA_DATA/motion_synthetic --hours 3
         (only its expressions are used; without shards see :smoke)
Run      vasa-jax train --config configs/motion_encoder.py --workdir runs/motion_encoder
Smoke    vasa-jax train --config configs/motion_encoder.py:smoke --workdir runs/smoke_encoder
Then     python -m vasa_jax.prepare.shards videos OUT --folder DIR --encoder runs/motion_encoder
"""

import dataclasses

from vasa_jax.core.mesh import MeshConfig
from vasa_jax.face.head.reader import MotionEncoderConfig
from vasa_jax.train.encoder import EncoderDataConfig, EncoderTrainConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig

VARIANTS = ("base", "smoke")

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices


def get_config(variant: str = "base") -> EncoderTrainConfig:
    base = EncoderTrainConfig(
        data=EncoderDataConfig(folder="$VASA_DATA/motion_synthetic"),
        optim=OptimConfig(lr=1e-3, steps=2500, warmup=100, ema_decay=0.995),
        loop=LoopConfig(log_every=100, picture_every=0, evaluate_every=500, checkpoint_every=1000),
    )
    if variant == "base":
        return base
    if variant == "smoke":
        return dataclasses.replace(
            base,
            model=MotionEncoderConfig(width=64, depth=1),
            data=EncoderDataConfig(),
            batch=32,
            optim=OptimConfig(lr=3e-3, steps=200, warmup=10, ema_decay=0.95),
            loop=LoopConfig(
                log_every=20, picture_every=0, evaluate_every=200, checkpoint_every=0, mesh=ANY
            ),
        )
    raise KeyError(variant)
