#!/usr/bin/env bash
# Measures stage 1 of the bundled release against rendered truth. VASA_FACEKIT: facekit.npz;
# VASA_MEDIA: folder with clips/; VASA_FACES: face files of training (to compare people with).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${VASA_FACEKIT:?the head model that training pictures were rendered with}"
here=experiments/2026-11-21_face_truth
mkdir -p out
.venv/bin/python -m vasa_jax.cli.main evaluate face "${RELEASE:-lite}" --seed 0 \
  --identities "${IDENTITIES:-12}" --pairs "${PAIRS:-14}" --states "${STATES:-8}" \
  --frames "${FRAMES:-2}" --json $here/table.json --sheet out/face_truth.png | tee out/face_truth.txt
.venv/bin/python - out/face_truth.png $here/sheet.png <<'PY'
import sys
from PIL import Image

Image.open(sys.argv[1]).quantize(256, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
PY
