#!/usr/bin/env bash
# Recordings' motion finished with a centred mean (the tree before), with the streams' own finish,
# that with a quick glide to values that are asked for, and as it is now, as slow as the mean. VASA_MEDIA:
# folder with speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source experiments/before.sh
here=experiments/2026-12-01_one_finish
tree_before vasa_jax/generate/finish/lag.py
moved() {
  at "$1" "$PWD/$here/measure.py" "$PWD/out/one_finish/$2.json" \
    "$VASA_MEDIA"/speech/{case1_talker,eng}.flac "${@:3}"
}
moved before before
moved after after --wanted-s 0.15
moved after slower --wanted-s 0.3
.venv/bin/python $here/table.py out/one_finish/{before,after,slower}.json > $here/table.md
for side in before after; do
  at $side -m vasa_jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
    --speech "$VASA_MEDIA/speech" --pairs 29 --seconds 8 --json "$PWD/out/one_finish/talk_$side.json"
  at $side -m vasa_jax evaluate controls lite --portraits vasa_jax/assets/example/portrait.png \
    --speech vasa_jax/assets/example/speech.flac --most 1 --judges "" \
    --json "$PWD/out/one_finish/controls_$side.json"
done
