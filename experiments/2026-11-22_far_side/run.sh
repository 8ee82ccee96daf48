#!/usr/bin/env bash
# What a turning head uncovers, before and after: pictures, and stage 1 against rendered truth of both
# commits. VASA_MEDIA: folder with portraits_test/; VASA_FACEKIT: facekit.npz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-22_far_side top=$PWD
source experiments/before.sh
tree_before vasa_jax/nn/fill.py
mkdir -p out
args=(--identities 6 --pairs 10 --states 0 --clips= --judges= --source portrait)
for side in before after; do
  tree=$top
  if [ $side = before ]; then tree=$before; fi
  cd "$tree"
  PYTHONPATH=$tree "$top/.venv/bin/python" "$top/tools/turn_heads.py" "$top/out/far_side_$side.npy" \
    --portraits "$VASA_MEDIA/portraits_test"
  PYTHONPATH=$tree "$top/.venv/bin/python" -m vasa_jax.cli.main evaluate face lite "${args[@]}" \
    --json "$top/out/far_side_$side.json" > "$top/out/far_side_$side.txt"
done
cd "$top"
.venv/bin/python tools/turn_heads.py --sheet $here/sheet.jpg out/far_side_{before,after}.npy
.venv/bin/python experiments/before_after.py $here far_side
.venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
  --speech "$VASA_MEDIA/speech" --pairs "${PAIRS:-10}" --seconds 8 --json $here/talk.json
.venv/bin/vasa-jax evaluate controls lite --portraits vasa_jax/assets/example/portrait.png \
  --speech vasa_jax/assets/example/speech.flac --most 1 --json $here/controls.json \
  --sheets out/controls
.venv/bin/vasa-jax generate vasa_jax/assets/example/portrait.png \
  vasa_jax/assets/example/speech.flac -o out/example.mp4 --sheet out/controls/example.png
.venv/bin/python - out/controls $here <<'PY'
import sys
from pathlib import Path

from vasa_jax.io.image import read_image, write_image

for name in ("gaze", "distance", "emotion", "blink", "example"):
    write_image(Path(sys.argv[2], f"{name}.jpg"), read_image(Path(sys.argv[1], f"{name}.png")))
PY
