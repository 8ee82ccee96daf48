"""Stage 1, full: MegaPortraits' graph with VASA-1's factors and losses, 512 px, 175 M parameters.

Data     as configs/face_256_lite.py without --portraits, with --size 512 for data.faces and
         --size 1024 for the stills, which are cut to the head; clips of one person in a folder of
         that person (CLIPS/anna/a.mp4)
Look     vasa-jax inspect configs/face_512.py        (parameters, FLOPs, activations per module)
Run      VASA_FACES=FACES vasa-jax train --config configs/face_512.py --workdir runs/face_512
Smoke    ...face_512.py:smoke     (CPU, the bundled portrait only; minutes, mostly compilation)
Overfit  ...face_512.py:overfit   (CPU, 128 px, two rendered people, every loss; about 3 hours)
Cost     one frame 0.52 TFLOP, one portrait 2.8 TFLOP; an update of two pairs 78 TFLOP, on two CPU
         cores 17 minutes and 22 GB (experiments/2026-11-22_full_size); not yet trained at this size

Schedule of MegaPortraits: 300k steps, batch 16, AdamW (0.5, 0.999), 2e-4 to 1e-6 by cosine (the
discriminator to 4e-6), no clipping, starting from the 256 px model (--set initial=runs/face_256).
"""

import dataclasses

from vasa_jax.core.mesh import MeshConfig
from vasa_jax.core.precision import BF16, F32
from vasa_jax.data.faces import FacePairsConfig
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.volume.discriminator import DiscriminatorConfig
from vasa_jax.train.disguise import DisguiseConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig
from vasa_jax.train.volumetric import VolumetricLossConfig, VolumetricTrainConfig

# Not portraits: their sources are warped by the lite flow, which this model would learn to undo.
SHARES = (("synthetic", 0.7), ("video", 0.3))

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices

VARIANTS = ("base", "smoke", "overfit")


def get_config(variant: str = "base") -> VolumetricTrainConfig:
    optim = OptimConfig(
        lr=2e-4, steps=300_000, warmup=0, decay="cosine", final_fraction=0.005, clip_norm=0.0,
        weight_decay=1e-2, b1=0.5, b2=0.999, eps=1e-8, ema_decay=0.999,
    )  # fmt: skip
    base = VolumetricTrainConfig(
        model=VolumetricConfig(
            remat=("encoder", "warp", "volume", "decoder"), precision=BF16
        ),
        discriminator=DiscriminatorConfig(precision=BF16),
        data=FacePairsConfig(folder="$VASA_FACES", size=512, shares=SHARES),
        optim=optim,
        discriminator_optim=dataclasses.replace(optim, final_fraction=0.02),
        loop=LoopConfig(
            log_every=50, picture_every=1000, evaluate_every=5000, checkpoint_every=5000
        ),
        batch=16,
        one_by_one=True,
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
                decoder_blocks=1, decoder_up_widths=(32, 16, 8), remat=("volume",), precision=F32,
            ),
            discriminator=DiscriminatorConfig(scales=2, widths=(8, 16, 16), strides=(2, 2, 1)),
            data=FacePairsConfig(folder="example", size=128),
            # No weights to download in a smoke run: pixels stand in for the feature nets.
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
    if variant == "overfit":
        # Can this graph with all its losses say everything about two people? Nothing is made
        # harder than it is: no disguise, no dropout, exact geometry, one camera.
        known = dataclasses.replace(
            optim, steps=3600, lr=1e-3, warmup=20, final_fraction=0.05, ema_decay=0.98
        )
        return dataclasses.replace(
            base,
            model=VolumetricConfig(
                size=128, volume=(4, 16, 16, 16), dynamics=32, dropout=0.0,
                encoder_widths=(16, 32, 48, 64), encoder_blocks=2, identity_code=64,
                identity_size=128, identity_blocks=(1, 1, 1, 1), dynamics_blocks=(1, 1, 1, 1),
                trunk_width=8, warp_widths=(32, 16), volume_widths=(16, 32, 32),
                decoder_width=96, decoder_blocks=2, decoder_up_widths=(64, 48, 32), precision=F32,
            ),
            discriminator=DiscriminatorConfig(scales=2, widths=(16, 32, 32), strides=(2, 2, 1)),
            data=FacePairsConfig(
                folder="$VASA_FACES", size=128, shares=(("synthetic", 1.0),), people=2, held_out=0,
                identity_noise=0.0, expression_noise=0.0, pose_noise_deg=0.0, camera=0.0,
            ),
            disguise=DisguiseConfig(
                warp=0.0, brightness=0.0, contrast=0.0, saturation=0.0, tint=0.0, grey=0.0
            ),
            loss=VolumetricLossConfig(l1=40.0, finest_scale=1, remat=False),
            optim=known,
            discriminator_optim=dataclasses.replace(known, lr=2e-4),
            loop=LoopConfig(
                log_every=10, picture_every=100, evaluate_every=100, checkpoint_every=100,
                mesh=ANY,
            ),
            batch=2,
            one_by_one=False,
        )  # fmt: skip
    raise ValueError(f"face_512 has the variants base, smoke and overfit, not {variant!r}")
