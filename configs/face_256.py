"""Stage 1, full, 256 px: the model of face_512 at half the resolution, to start from.

The volume keeps its 64 x 64 cells; encoder and decoder have one resampling less, so all weights
fit the 512 px model (--set initial=runs/face_256 there).

Data     as configs/face_256_lite.py without --portraits; clips of one person in a folder of that
         person (CLIPS/anna/a.mp4)
Run      VASA_FACES=FACES vasa-jax train --config configs/face_256.py --workdir runs/face_256
Smoke    ...face_256.py:smoke     (CPU, the bundled portrait only; minutes, mostly compilation)
Cost     see `vasa-jax inspect`; not yet trained at this size

Schedule of MegaPortraits: 200k steps, batch 24; the rest as in face_512.
"""

import dataclasses

from vasa_jax.core.mesh import MeshConfig
from vasa_jax.core.precision import BF16, F32
from vasa_jax.data.faces import FacePairsConfig
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.volume.discriminator import DiscriminatorConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig
from vasa_jax.train.volumetric import VolumetricLossConfig, VolumetricTrainConfig

# Not portraits: their sources are warped by the lite flow, which this model would learn to undo.
SHARES = (("synthetic", 0.7), ("video", 0.3))

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices

VARIANTS = ("base", "smoke")


def get_config(variant: str = "base") -> VolumetricTrainConfig:
    optim = OptimConfig(
        lr=2e-4, steps=200_000, warmup=0, decay="cosine", final_fraction=0.005, clip_norm=0.0,
        weight_decay=1e-2, b1=0.5, b2=0.999, eps=1e-8, ema_decay=0.999,
    )  # fmt: skip
    base = VolumetricTrainConfig(
        model=VolumetricConfig(
            size=256, remat=("encoder", "warp", "volume", "decoder"), precision=BF16
        ),
        discriminator=DiscriminatorConfig(precision=BF16),
        data=FacePairsConfig(folder="$VASA_FACES", size=256, shares=SHARES),
        optim=optim,
        discriminator_optim=dataclasses.replace(optim, final_fraction=0.02),
        loop=LoopConfig(
            log_every=50, picture_every=1000, evaluate_every=5000, checkpoint_every=5000
        ),
        batch=24,
    )  # fmt: skip
    if variant == "base":
        return base
    if variant == "smoke":
        small = dataclasses.replace(optim, steps=40, lr=2e-3)
        return dataclasses.replace(
            base,
            model=VolumetricConfig(
                size=128, volume=(4, 16, 16, 8), dynamics=16, encoder_widths=(8, 8, 16, 24),
                encoder_blocks=1, identity_code=32, identity_size=128,
                identity_blocks=(1, 1, 1, 1), dynamics_blocks=(1, 1, 1, 1), trunk_width=4,
                warp_widths=(16, 8), volume_widths=(8, 16, 16), decoder_width=48,
                decoder_blocks=1, decoder_up_widths=(32, 16, 8), precision=F32,
            ),
            discriminator=DiscriminatorConfig(scales=1, widths=(8, 16), strides=(2, 2)),
            data=FacePairsConfig(folder="example", size=128),
            loss=VolumetricLossConfig(
                perceptual=0.0, face=0.0, cross_identity=0.0, l1=40.0, eyes=2.0,
                feature_matching=4.0, adversarial=0.1,
            ),
            optim=small,
            discriminator_optim=small,
            loop=LoopConfig(
                log_every=5, picture_every=40, evaluate_every=40, checkpoint_every=40, mesh=ANY
            ),
            batch=4,
        )  # fmt: skip
    raise ValueError(f"face_256 has the variants base and smoke, not {variant!r}")
