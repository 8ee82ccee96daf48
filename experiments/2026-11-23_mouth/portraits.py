"""Mouths of talking portraits, cut from their whole pictures: OUT.npy, or a sheet of several.

portraits.py OUT.npy --portraits DIR --speech FILE --shown NAME ... [--seconds 5]
portraits.py --sheet OUT.jpg BEFORE.npy AFTER.npy

The first form renders with the package that is imported. Of each portrait the four most open
mouths of the speech are shown, at least 0.4 s apart.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import vasa_jax
from vasa_jax.core.types import EXPRESSION, SAMPLE_RATE_HZ
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import write_image
from vasa_jax.motion.arkit.lips import lip_gap_cm

parser = argparse.ArgumentParser()
parser.add_argument("files", nargs="+", type=Path)
parser.add_argument("--sheet", type=Path)
parser.add_argument("--portraits", type=Path)
parser.add_argument("--speech", type=Path)
parser.add_argument("--shown", nargs="+", default=[])
parser.add_argument("--seconds", type=float, default=5.0)
args = parser.parse_args()
COUNT, APART, SIZE = 4, 10, (240, 168)
EYES, LIPS = (33, 263), (61, 291)  # landmarks: outer corners

if args.sheet:
    trees = [np.load(file) for file in args.files]
    rows = [np.concatenate([tree[i] for tree in trees], 1) for i in range(len(trees[0]))]
    write_image(args.sheet, np.concatenate(rows))
    raise SystemExit

release = vasa_jax.load_release("lite")
speech = read_audio(args.speech)[: round(args.seconds * SAMPLE_RATE_HZ)]
rows = []
for name in args.shown:
    talker = vasa_jax.Talker(release, args.portraits / f"{name}.jpg")
    gap = np.asarray(lip_gap_cm(talker.motion(speech, seed=1)[:, EXPRESSION]))
    chosen = []
    for k in np.argsort(-gap):
        if all(abs(k - c) >= APART for c in chosen) and len(chosen) < COUNT:
            chosen.append(int(k))
    points = talker.face.landmarks[:, :2]
    wide = np.linalg.norm(points[EYES[0]] - points[EYES[1]]) * 0.6
    x, y = points[list(LIPS)].mean(0)
    box = tuple(round(v) for v in (x - wide, y - 0.65 * wide, x + wide, y + 0.75 * wide))
    frames = {k: f.copy() for k, f in enumerate(talker.generate(speech, seed=1)) if k in chosen}
    cut = [Image.fromarray(frames[k]).crop(box).resize(SIZE, 3) for k in sorted(chosen)]
    rows.append(np.concatenate([np.asarray(c) for c in cut], 1))
    print(name, flush=True)
np.save(args.files[0], np.stack(rows))
