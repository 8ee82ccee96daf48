"""Stage 2, full size: the motion transformer of VASA-1 (section 3.2; sizes of section 4).

Model    8 layers, width 512, 8 heads; 28.8 M parameters with the audio encoder
         (vasa-jax inspect configs/motion_base.py)
Tokens   past audio (10) | audio (50) | condition | past motion (10) | noisy motion (50), figure 2
Data     as for motion_lite.py: folders of shards of vasa_jax/data/motions.py, 39 kB a second. Clips
         are read from there when they are drawn, memory holds an index; statistics are taken once
         at the start, from the motion of all (2.7 kB a second). Tried with hours, not thousands
Run      vasa-jax train --config configs/motion_base.py --workdir runs/motion_base
Smoke    vasa-jax train --config configs/motion_base.py:smoke --workdir runs/smoke   (a minute)
Cost     19.5 GFLOP per window, forward and backward: 2.5 TFLOP per step, 0.5 EFLOP in all
         (train/cost.py). Hours not measured: no run of this size was made yet. 0.46 GB for
         parameters, average and optimiser. Making a window takes 4.5 ms of one CPU core: beside a
         fast accelerator set loop.workers to most of the cores; they read the same files
Many     --set loop.mesh.fsdp=4, --set optim.accumulate=2, --cluster: vasa-jax train --help

What the paper leaves open is chosen as follows: windows of W = 50 after K = 10 frames, a cosine
schedule with continuous times, AdamW at 1e-4. ``:aligned`` adds the two shortcuts of the lite model
to the same tokens (each frame's audio and controls are added to its motion token): lip sync from
less data, and controls that change within a window. ``velocity`` is off, as in equation 1; switch
it on with ``--set loss.velocity=1.0``.
"""

import dataclasses

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core.mesh import MeshConfig
from vasa_jax.core.precision import BF16, F32
from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.losses.diffusion import MotionLossConfig
from vasa_jax.motion.conditions import DropConfig
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.motion.transformer import TransformerConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.motion import MotionTrainConfig
from vasa_jax.train.optim import OptimConfig

VARIANTS = ("base", "aligned", "smoke")

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices


def get_config(variant: str = "base") -> MotionTrainConfig:
    base = MotionTrainConfig(
        model=MotionModelConfig(
            encoder=EncoderConfig(width=256, hidden=384, num_blocks=3),
            transformer=TransformerConfig(
                depth=8, width=512, num_heads=8, align_audio=False, frame_controls=False
            ),
            window=50,
            past=10,
            num_visemes=21,
            schedule="cosine",
            prediction="x0",
            precision=BF16,
        ),
        data=MotionDataConfig(
            folders=("$VASA_DATA/motion_synthetic", "$VASA_DATA/motion_grid"),
            shares=(0.8, 0.2),
            batch=128,
        ),
        # Pose and dynamics weigh the same (core/space.py). These two train the audio encoder,
        # which the paper takes frozen from elsewhere.
        loss=MotionLossConfig(auxiliary=0.5, viseme=0.1),
        drop=DropConfig(condition=0.1, past=0.5, tail=0.3),
        optim=OptimConfig(lr=1e-4, steps=200_000, warmup=5000, ema_decay=0.9999),
        loop=LoopConfig(
            log_every=100, picture_every=5000, evaluate_every=5000, checkpoint_every=5000
        ),
    )  # fmt: skip
    if variant == "base":
        return base
    if variant == "aligned":
        transformer = dataclasses.replace(
            base.model.transformer, align_audio=True, frame_controls=True
        )
        return dataclasses.replace(
            base, model=dataclasses.replace(base.model, transformer=transformer)
        )
    if variant == "smoke":
        return dataclasses.replace(
            base,
            model=dataclasses.replace(
                base.model,
                encoder=EncoderConfig(width=32, hidden=48, num_blocks=2),
                transformer=dataclasses.replace(
                    base.model.transformer, depth=2, width=48, num_heads=2
                ),
                window=24,
                past=6,
                num_visemes=2,
                precision=F32,
            ),
            data=MotionDataConfig(batch=8),
            optim=OptimConfig(lr=3e-3, steps=200, warmup=10, ema_decay=0.95),
            loop=LoopConfig(
                log_every=10, picture_every=0, evaluate_every=100, checkpoint_every=0, mesh=ANY
            ),
        )
    raise KeyError(variant)
