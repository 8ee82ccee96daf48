#!/usr/bin/env bash
# Necks and undersides of jaws that a head uncovers, and the light on teeth, before and after: heads
# turned and raised, stage 1 against rendered truth, real people's open mouths, talking mouths; then
# everything known of the bundled release. VASA_MEDIA: folder with clips/, portraits_test/ and
# speech/; VASA_FACEKIT: facekit.npz; PAIRS: of portrait and voice (29); OTHERS: folder of portraits
# that the faces of emotions were not chosen by.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source experiments/before.sh
source experiments/measure_release.sh
here=experiments/2026-11-23_neck
mouth=$PWD/experiments/2026-11-23_mouth
out=$PWD/out/neck
mkdir -p "$out"
tree_before $here/run.sh
face_before_after $here --names 081 303 083 077 --yaw -14 14 --pitch 8
for side in before after; do
  at $side "$mouth/reenact.py" "$out/$side.npz" --clips "$VASA_MEDIA/clips"
  at $side "$mouth/portraits.py" "$out/$side.npy" --portraits "$VASA_MEDIA/portraits_test" \
    --speech "$VASA_MEDIA/speech/english_female.flac" --shown 077 051 082 083 081 302 303 067
done
.venv/bin/python "$mouth/judge.py" $here/mouths.json before="$out/before.npz" after="$out/after.npz"
.venv/bin/python "$mouth/portraits.py" --sheet $here/mouths.jpg "$out/before.npy" "$out/after.npy"
export PAIRS=${PAIRS:-29}
measure_release $here
