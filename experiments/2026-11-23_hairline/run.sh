#!/usr/bin/env bash
# Temples under hair, before and after: pictures, and stage 1 against rendered truth of both commits.
# VASA_MEDIA: folder with portraits_test/; VASA_FACEKIT: facekit.npz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-23_hairline top=$PWD
source experiments/before.sh
tree_before vasa_jax/face/hairline.py
mkdir -p out
args=(--identities 6 --pairs 10 --states 0 --clips= --judges= --source portrait)
for side in before after; do
  tree=$top
  if [ $side = before ]; then tree=$before; fi
  cd "$tree"
  PYTHONPATH=$tree "$top/.venv/bin/python" "$top/tools/turn_heads.py" "$top/out/hairline_$side.npy" \
    --portraits "$VASA_MEDIA/portraits_test" --names 303 050 079 081 --yaw -16 -10 10 16
  PYTHONPATH=$tree "$top/.venv/bin/python" -m vasa_jax.cli.main evaluate face lite "${args[@]}" \
    --json "$top/out/hairline_$side.json" > "$top/out/hairline_$side.txt"
done
cd "$top"
.venv/bin/python tools/turn_heads.py --sheet $here/sheet.jpg out/hairline_{before,after}.npy
.venv/bin/python experiments/before_after.py $here hairline
