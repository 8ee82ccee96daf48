#!/usr/bin/env bash
# Mouths as the nets painted them before this record and as geometry paints them: real people drawn
# from a frame with shut lips against their own open mouths, and portraits; then everything known of
# the bundled release. VASA_MEDIA: folder with clips/, portraits_test/ and speech/; PAIRS: of portrait
# and voice (29); OTHERS: folder of portraits that the faces of emotions were not chosen by.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source experiments/before.sh
source experiments/measure_release.sh
here=experiments/2026-11-23_mouth
out=$PWD/out/mouth
mkdir -p "$out"
tree_before vasa_jax/face/warp/mouth.py
for side in before after; do
  at $side "$PWD/$here/reenact.py" "$out/$side.npz" --clips "$VASA_MEDIA/clips"
  at $side "$PWD/$here/portraits.py" "$out/$side.npy" --portraits "$VASA_MEDIA/portraits_test" \
    --speech "$VASA_MEDIA/speech/english_female.flac" --shown 077 051 082 083 081 302 303 067
done
.venv/bin/python $here/judge.py $here/results.json before="$out/before.npz" after="$out/after.npz"
.venv/bin/python $here/portraits.py --sheet $here/sheet.jpg "$out/before.npy" "$out/after.npy"
export PAIRS=${PAIRS:-29}
measure_release $here
