"""Drawn mouths against true ones: judge.py RESULTS.json NAME=FILE.npz ... (of reenact.py).

LPIPS and PSNR of a box around the true mouth; contrast, detail and odd hues between the lips of
each (``metrics/mouth.py``) beside those of the truth. Intervals: 95 %, bootstrap over people.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vasa_jax.evaluate.suite import bootstrap, plain
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.metrics import image, mouth

HALF_PX = (40, 28)  # of the box, right and down
LARGER = 3  # times, for LPIPS, whose net wants more pixels
out = Path(sys.argv[1])
trees = {name: np.load(file) for name, file in (x.split("=") for x in sys.argv[2:])}
first = next(iter(trees.values()))
people = np.array([str(n).rsplit("_", 1)[0] for n in first["names"]])
lpips, finder = image.load_lpips(), FaceFinder()


def box(square, points):
    x, y = points[list(mouth.AROUND), :2].mean(0).round().astype(int)
    return square[max(y - HALF_PX[1], 0) : y + HALF_PX[1], max(x - HALF_PX[0], 0) : x + HALF_PX[0]]


def large(picture):
    height, width = picture.shape[:2]
    size = width * LARGER, height * LARGER
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def by_person(values):
    """Means of each person, whose clips are more alike than those of two."""
    values = np.array(values, float)
    return bootstrap([np.nanmean(values[people == p]) for p in np.unique(people)])


def between_lips(squares):
    rows = []
    for square in squares:
        face = finder.find(square)
        rows.append(mouth.measure([(square, face[0].landmarks)]) if face else {})
    keys = "mouth_contrast", "mouth_detail", "mouth_odd_hue"
    return {k: by_person([row.get(k, np.nan) for row in rows]) for k in keys}


results = {"truth": between_lips(first["truths"])}
distances = {}
for name, tree in trees.items():
    assert (tree["names"] == first["names"]).all()
    pairs = [
        (box(t, p), box(d, p))
        for t, d, p in zip(tree["truths"], tree["drawn"], tree["points"], strict=True)
    ]
    distances[name] = [lpips(large(t), large(d)) for t, d in pairs]
    results[name] = {
        "lpips": by_person(distances[name]),
        "psnr_db": by_person([image.psnr(t, d) for t, d in pairs]),
        **between_lips(tree["drawn"]),
    }
names = list(trees)
less = by_person(np.array(distances[names[-1]]) - np.array(distances[names[0]]))
results["lpips_change"] = less
out.write_text(json.dumps(plain(results), indent=1) + "\n")
for key in ("lpips", "psnr_db", "mouth_contrast", "mouth_detail", "mouth_odd_hue"):
    print(key, {n: round(r[key]["mean"], 3) for n, r in results.items() if key in r})
print("lpips change", less)
