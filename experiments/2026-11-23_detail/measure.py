"""Whole pictures with and without the portrait's own detail: sharpness of the face, and a sheet.

measure.py OUT.json SHEET.jpg --portraits DIR --speech FILE [--shown NAME ...] [--seconds 3]

Sharpness is that of metrics/image.py in the middle of the face, at the resolution of the portrait,
over that of the portrait there: median over every fifth frame.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import vasa_jax
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ
from vasa_jax.face.find.align import extract
from vasa_jax.generate import talker as talkers
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import contact_sheet, write_image
from vasa_jax.metrics.image import sharpness

parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("sheet", type=Path)
parser.add_argument("--portraits", type=Path, required=True)
parser.add_argument("--speech", type=Path, required=True)
parser.add_argument("--shown", nargs="+", default=[])
parser.add_argument("--seconds", type=float, default=3.0)
args = parser.parse_args()

WAYS = {"without": lambda *given: None, "with": talkers.portrait_detail}
release = vasa_jax.load_release("lite")
speech = read_audio(args.speech)[: round(args.seconds * SAMPLE_RATE_HZ)]


def middle(picture, crop):
    """The face without its surroundings, as large as it is."""
    side = round(crop.size)
    square = extract(picture, crop, side)
    return square[side // 4 : -side // 4, side // 4 : -side // 4]


table, rows = {}, []
for path in sorted(args.portraits.iterdir()):
    try:
        talker = vasa_jax.Talker(release, path)
    except UserError:
        continue
    if WAYS["with"](talker.image, talker.crop, talker.engine.size) is None:
        print(f"{path.stem}: {talker.crop.size:.0f} px, no detail", flush=True)
        continue
    own = sharpness(middle(talker.image, talker.crop))
    row, pictures = {"crop_px": talker.crop.size}, [middle(talker.image, talker.crop)]
    for name, way in WAYS.items():
        talkers.portrait_detail = way
        frames = list(talker.generate(speech, seed=1))[::5]
        faces = [middle(f, talker.crop) for f in frames]
        row[name] = float(np.median([sharpness(f) for f in faces])) / own
        pictures += [faces[len(faces) // 3], faces[2 * len(faces) // 3]]
    table[path.stem] = row
    if path.stem in args.shown:
        rows.append(pictures)
    print(path.stem, " ".join(f"{k} {v:.2f}" for k, v in row.items()), flush=True)
mean = {k: float(np.mean([r[k] for r in table.values()])) for k in WAYS}
print(f"mean of {len(table)}:", " ".join(f"{k} {v:.2f}" for k, v in mean.items()))
args.out.write_text(json.dumps({"mean": mean, "portraits": table}, indent=1) + "\n")
if rows:
    write_image(args.sheet, contact_sheet(rows, cell=300))
