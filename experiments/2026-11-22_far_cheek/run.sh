#!/usr/bin/env bash
# Portraits turned to both sides, without and with paint on the far cheek; and stage 1 against truth
# of both commits. VASA_MEDIA: folder with portraits_test/; VASA_FACEKIT: facekit.npz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-22_far_cheek with=${WITH:-HEAD}
source experiments/before.sh
tree_before vasa_jax/face/warp/inpaint.py "$with"
mkdir -p out
top=$PWD
args=(--identities 6 --pairs 10 --states 0 --clips= --judges= --source portrait)
for side in before after; do
  at $side -m vasa_jax.cli.main evaluate face lite "${args[@]}" \
    --json "$top/out/far_cheek_$side.json" > /dev/null
  at $side - "$top/out/far_cheek_$side.npy" "$VASA_MEDIA/portraits_test" <<'PY'
import sys

import numpy as np

from vasa_jax.core.types import MOTION_DIM
from vasa_jax.generate.talker import Talker

rows = np.zeros((4, MOTION_DIM), np.float32)
rows[:, 0] = -0.38, -0.22, 0.22, 0.38  # yaw in rad, added to the portrait's own
names = ("302", "077", "050", "082")
squares = [Talker("lite", f"{sys.argv[2]}/{n}.jpg").render(rows) for n in names]
np.save(sys.argv[1], np.concatenate([np.concatenate(list(s), 1) for s in squares]))
PY
done
.venv/bin/python - $here <<'PY'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

here, sides = Path(sys.argv[1]), ("before", "after")
both = np.concatenate([np.load(f"out/far_cheek_{s}.npy") for s in sides], 1)
sheet = Image.fromarray(both).resize((both.shape[1] * 3 // 4, both.shape[0] * 3 // 4))
sheet.quantize(256, dither=Image.Dither.NONE).save(here / "sheet.png", optimize=True)
PY
.venv/bin/python experiments/before_after.py $here far_cheek
