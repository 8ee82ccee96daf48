"""One minute of speech, five times over in one go: does the last minute differ from the first?

drift.py OUT.json SHEET.jpg --portrait FILE --speech FILE [--minutes 5]

Each minute hears the same, so what differs between them is drift or chance. SHEET: a row for each
minute, the same moments of its speech.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

import vasa_jax
from vasa_jax.core.types import FPS, POSE, POSE_NAMES, SAMPLE_RATE_HZ
from vasa_jax.evaluate import suite
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import contact_sheet, write_image
from vasa_jax.metrics import phonemes

parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("sheet", type=Path)
parser.add_argument("--portrait", type=Path, required=True)
parser.add_argument("--speech", type=Path, required=True)
parser.add_argument("--minutes", type=int, default=5)
args = parser.parse_args()
LENGTH, SHOWN = 60 * FPS, 8

speech = read_audio(args.speech)[: 60 * SAMPLE_RATE_HZ]
speech = np.pad(speech, (0, 60 * SAMPLE_RATE_HZ - len(speech)))
whole = np.tile(speech, args.minutes)
talker = vasa_jax.Talker("lite", args.portrait)
portrait = suite.Portrait(talker.image, talker.face.landmarks)
spoken = phonemes.recognise(speech)
motion = talker.motion(whole, seed=0)
rows, pictures = [], []
stream = talker.generate(whole, seed=0)
for minute in range(args.minutes):
    shown = []

    def watched(shown=shown):
        for i, frame in enumerate(itertools.islice(stream, LENGTH)):
            if i % (LENGTH // SHOWN) == LENGTH // SHOWN // 2:
                shown.append(frame.copy())
            yield frame

    row = suite.measure_clip(watched(), spoken, samples=speech, portrait=portrait)
    part = motion[minute * LENGTH : (minute + 1) * LENGTH, POSE]
    row["mean_pose"] = dict(zip(POSE_NAMES, part.mean(0).round(5).tolist(), strict=True))
    rows.append(row)
    pictures.append(shown)
    print(minute + 1, {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}, flush=True)
args.out.write_text(json.dumps(suite.plain(rows), indent=1) + "\n")
write_image(args.sheet, contact_sheet(pictures, cell=160))
