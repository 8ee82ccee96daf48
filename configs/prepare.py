"""What `vasa-jax prepare` makes of videos, by kind of data.

Run      vasa-jax prepare RAW -o CLIPS --config configs/prepare.py
Small    ...prepare.py:small       256 px, for the lite face and for recordings of a webcam
Grid     ...prepare.py:grid        the GRID corpus: 288 px pictures of heads, one speaker a folder
Vox      ...prepare.py:voxceleb2   folders as dev/mp4/PERSON/VIDEO/CLIP.mp4, given as dev/mp4
Cost     about 1.7 s of one core for a second of video (experiments/2026-12-01_prepare)
"""

import dataclasses

from vasa_jax.prepare.config import CropConfig, PrepareConfig

VARIANTS = ("base", "small", "grid", "voxceleb2")


def get_config(variant: str = "base") -> PrepareConfig:
    base = PrepareConfig()
    if variant == "base":
        return base
    small = dataclasses.replace(base, size=256)
    if variant == "small":
        return small
    if variant == "grid":
        return dataclasses.replace(
            small, people="folders", licence="GRID corpus, CC BY 4.0, Cooke et al. 2006"
        )
    if variant == "voxceleb2":
        # Its clips are 224 px; the paper trains on what is larger. People are the first folders.
        return dataclasses.replace(
            small, people="folders", crop=CropConfig(least=0.6),
            licence="VoxCeleb2; the videos are their uploaders' own",
        )  # fmt: skip
    raise KeyError(variant)
