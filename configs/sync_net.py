r"""The sync judge (``metrics/sync_net.py``): which mouth belongs to which sound.

Data     python -m vasa_jax.prepare.sync_clips videos $VASA_DATA/lips_grid --folder GRID
         python -m vasa_jax.prepare.sync_clips acted $VASA_DATA/lips_acted \
             --folder $VASA_DATA/motion_synthetic
Run      vasa-jax train --config configs/sync_net.py --workdir runs/sync_net
Then     python tools/make_sync_net.py runs/sync_net
"""

from vasa_jax.data.motions import MotionDataConfig
from vasa_jax.metrics.sync_net import SyncNetConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig
from vasa_jax.train.sync_net import SyncTrainConfig

VARIANTS = ("base",)


def get_config(variant: str = "base") -> SyncTrainConfig:
    if variant != "base":
        raise KeyError(variant)
    return SyncTrainConfig(
        model=SyncNetConfig(),
        data=MotionDataConfig(
            folders=("$VASA_DATA/lips_grid", "$VASA_DATA/lips_acted"), shares=(0.6, 0.4),
            batch=96, windows_per_clip=3, lead_frames=20, held_out=0.06,
        ),
        optim=OptimConfig(lr=1e-3, steps=1200, warmup=100, ema_decay=0.995, weight_decay=1e-2),
        loop=LoopConfig(log_every=50, picture_every=0, evaluate_every=300, checkpoint_every=300),
    )  # fmt: skip
