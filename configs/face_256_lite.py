"""Stage 1, lite: the face autoencoder of the bundled release, 256 px.

Data     python -m vasa_jax.synth.person.picture stills STILLS --identities 300 --size 512 \
             --head facekit.npz
         python tools/make_head.py facekit.npz HEAD.npz --stills STILLS
         python -m vasa_jax.data.faces FACES --head HEAD.npz --stills STILLS \
             --portraits PHOTOGRAPHS --video CLIPS
         Without photographs or clips say so: --set 'data.shares=[["synthetic", 1.0]]'
Run      VASA_FACES=FACES vasa-jax train --config configs/face_256_lite.py --workdir runs/face
Smoke    ...face_256_lite.py:smoke     (CPU, the bundled portrait only, about a minute; CI runs it)
Cost     4.1 GFLOP per pair, forward and backward (train/cost.py); see experiments/LOG.md for hours
         and throughput that were measured
"""

import dataclasses

from vasa_jax.core.mesh import MeshConfig
from vasa_jax.data.faces import FacePairsConfig
from vasa_jax.face.warp.autoencoder import FaceConfig
from vasa_jax.train.face import FaceLossConfig, FaceTrainConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig

ANY = MeshConfig(devices=-1)  # a small batch runs on any number of devices

VARIANTS = ("base", "smoke")


def get_config(variant: str = "base") -> FaceTrainConfig:
    base = FaceTrainConfig(
        model=FaceConfig(),
        data=FacePairsConfig(folder="$VASA_FACES"),
        optim=OptimConfig(
            lr=1.2e-3, steps=2600, warmup=60, decay="cosine", final_fraction=0.03, clip_norm=2.0,
            weight_decay=1e-4, ema_decay=0.995,
        ),
        loop=LoopConfig(log_every=20, picture_every=250, evaluate_every=500, checkpoint_every=250),
        batch=4,
    )  # fmt: skip
    if variant == "base":
        return base
    if variant == "smoke":
        return dataclasses.replace(
            base,
            model=FaceConfig(
                size=64, volume=(4, 8, 8, 4), encoder_width=8, code=16, warp_width=4,
                decoder_widths=(8, 12, 16), margin=0,
            ),
            data=FacePairsConfig(folder="example", size=64),
            loss=FaceLossConfig(perceptual=0.0, identity=0.0, window=0),
            optim=dataclasses.replace(base.optim, steps=40, warmup=4, lr=3e-3),
            loop=LoopConfig(
                log_every=5, picture_every=40, evaluate_every=40, checkpoint_every=40, mesh=ANY
            ),
            batch=4,
        )  # fmt: skip
    raise ValueError(f"face_256_lite has the variants base and smoke, not {variant!r}")
