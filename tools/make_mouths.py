"""Makes ``vasa_jax/face/find/assets/mouths.npz``: the mean mouth of portraits and its variations.

    tools/make_mouths.py FOLDER_OF_PORTRAITS

``face/find/quality.py`` asks with it whether what lies between nose and chin looks like a mouth.
The numbers are principal components of patches of 48x32 px, each portrait's and its mirror image's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vasa_jax.face.find import align, quality
from vasa_jax.face.find.detection import ASSETS
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.io.image import read_image

COMPONENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="portraits with free mouths")
    parser.add_argument("-o", "--output", type=Path, default=ASSETS / "mouths.npz")
    args = parser.parse_args()
    finder, patches = FaceFinder(), []
    for path in sorted(args.folder.iterdir()):
        image = read_image(path, max_side=512)
        for face in finder.find(image)[:1]:
            crop = align.crop_from_landmarks(face.landmarks)
            square = align.extract(image, crop, quality.SIDE)
            points = align.to_crop(face.landmarks, crop) * quality.SIDE
            patches.append(quality.mouth_patch(square, points))
    shape = (-1, quality.MOUTH_HEIGHT, quality.MOUTH_WIDTH)
    grid = np.stack(patches).reshape(shape)
    both = np.concatenate([grid, grid[:, :, ::-1]]).reshape(2 * len(patches), -1)
    mean = both.mean(0)
    basis = np.linalg.svd(both - mean, full_matrices=False)[2][:COMPONENTS]
    np.savez_compressed(args.output, mean=mean.astype(np.float16), basis=basis.astype(np.float16))
    print(f"{args.output}: {len(patches)} portraits, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
