"""Open mouths of real people, drawn from a frame of theirs with shut lips: OUT.npz.

reenact.py OUT.npz --clips DIR [--seconds 20] [--drivers 6]

Run with the package of the tree that is to be judged. Squares of 256 px: source, truth, drawn.
"""

import argparse
from pathlib import Path

import numpy as np

import vasa_jax
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceTracker
from vasa_jax.face.swap import Reenactor
from vasa_jax.generate.engine import engine_for
from vasa_jax.io.video import read_video
from vasa_jax.metrics.sync import lip_aperture

parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("--clips", type=Path, required=True)
parser.add_argument("--seconds", type=float, default=20.0)
parser.add_argument("--drivers", type=int, default=6)
args = parser.parse_args()
EVERY, APART = 3, 4  # frames; looked at ones between two drivers

engine = engine_for(vasa_jax.load_release("lite"))
reenactor = Reenactor(engine.face, engine.face_params)
rows = []
for clip in sorted(args.clips.glob("*.mp4")):
    tracker, seen = FaceTracker(), []
    for i, frame in enumerate(read_video(clip)):
        if i > 25 * args.seconds:
            break
        face = tracker.track(frame)
        if i % EVERY == 0 and face is not None:
            crop = align.crop_from_landmarks(face.landmarks)
            square = align.extract(frame, crop, 256)
            seen.append((square, align.to_crop(face.landmarks, crop) * 256))
    apertures = lip_aperture(np.stack([points for _, points in seen]))
    source, points = seen[int(apertures.argmin())]
    own = reenactor.source(source, reenactor.fit(points))
    chosen = []
    for k in np.argsort(-apertures):
        if all(abs(k - c) >= APART for c in chosen) and len(chosen) < args.drivers:
            chosen.append(int(k))
    for k in chosen:
        truth, points = seen[k]
        driver = reenactor.fit(points)
        drawn = reenactor.render(own, *reenactor.swap(own.fit, driver, driver))
        rows.append((clip.stem, source, truth, drawn, points))
    print(f"{clip.stem}: {len(seen)} frames, {len(chosen)} drivers", flush=True)
names, sources, truths, drawn, points = (np.stack(x) for x in zip(*rows, strict=True))
np.savez(args.out, names=names, sources=sources, truths=truths, drawn=drawn, points=points)
