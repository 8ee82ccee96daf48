#!/usr/bin/env bash
# Paintings, statues, drawings and an animal speak. VASA_MEDIA: folder with portraits_test/ and speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
.venv/bin/python - "$VASA_MEDIA" experiments/2026-11-22_kinds_of_portraits/sheet.jpg <<'PY'
"""Two columns of rows: the portrait's surroundings of the face, and six moments of its speech."""

import sys
from pathlib import Path

import numpy as np

import vasa_jax
from vasa_jax.core.errors import UserError
from vasa_jax.face.find.align import extract
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import contact_sheet, write_image

media, target = Path(sys.argv[1]), sys.argv[2]
speech = read_audio(media / "speech" / "english_male.mp3")[: 6 * 16_000]
release, rows = vasa_jax.load_release("lite"), []
names = "067 077 079 082 083 050 051 080 302 081 303 301".split()
for seed, name in enumerate(names):
    try:
        talker = vasa_jax.Talker(release, media / "portraits_test" / f"{name}.jpg")
    except UserError as error:
        print(f"{name}: refused: {error}", flush=True)
        continue
    frames = list(talker.generate(speech, seed=seed, frame="crop"))
    given = extract(talker.image, talker.crop, frames[0].shape[0])
    rows.append([given, *(frames[i] for i in np.linspace(12, len(frames) - 12, 6).astype(int))])
    print(f"{name}: {len(frames)} frames", flush=True)
half = -(-len(rows) // 2)
pairs = [rows[i] + (rows[i + half] if i + half < len(rows) else []) for i in range(half)]
write_image(target, contact_sheet(pairs, cell=144))
PY
