#!/usr/bin/env bash
# Are emotions that are asked for recognised, before and after they are held at their own faces?
# PORTRAITS: folder with portraits (default: the bundled one); OTHERS: one with portraits that the faces
# were not chosen by, for the last part alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-23_emotions top=$PWD
source experiments/before.sh
tree_before vasa_jax/motion/arkit/emotions.py
for side in before after; do
  at $side -m vasa_jax.cli.main evaluate controls lite \
    --portraits "${PORTRAITS:-$top/vasa_jax/assets/example/portrait.png}" --most 12 --only emotion \
    --seconds 3 --speech "$top/vasa_jax/assets/example/speech.flac" \
    --json "$top/$here/$side.json" --sheets "$top/out/emotions_$side"
done
if [ -n "${OTHERS:-}" ]; then
  .venv/bin/vasa-jax evaluate controls lite --portraits "$OTHERS" --most 12 --only emotion \
    --seconds 3 --speech vasa_jax/assets/example/speech.flac --json $here/others.json
fi
.venv/bin/python - $here <<'PY'
import sys

from PIL import Image

sheet = Image.open("out/emotions_after/emotion.png").convert("RGB")
small = sheet.resize((1400, round(sheet.height * 1400 / sheet.width)), Image.LANCZOS)
small.save(f"{sys.argv[1]}/after.jpg", quality=82)
PY
