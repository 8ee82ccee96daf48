#!/usr/bin/env bash
# What the lips of the release did before this record, with lips pressed where they come near, and
# with the weights trained here, too; then everything known of the bundled release. VASA_MEDIA: folder
# with portraits_test/ and speech/; PAIRS: of portrait and voice (29); OTHERS: folder of portraits.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source experiments/before.sh
source experiments/measure_release.sh
here=experiments/2026-11-23_closures
lips() { at "$1" "$PWD/$here/measure.py" "$PWD/out/closures/$2.json" --speech "$VASA_MEDIA/speech" "${@:3}"; }
tree_before vasa_jax/motion/arkit/lips.py
lips before before
lips after pressed --release "$before/vasa_jax/releases/lite"
lips after trained
.venv/bin/python $here/table.py out/closures/{before,pressed,trained}.json > $here/lips.md
cp out/closures/trained.json $here/lips.json
export PAIRS=${PAIRS:-29}
measure_release $here
if [ -n "${OTHERS:-}" ]; then  # portraits that the faces of emotions were not chosen by
  .venv/bin/vasa-jax evaluate controls lite --portraits "$OTHERS" --most 12 --only emotion \
    --seconds 3 --speech vasa_jax/assets/example/speech.flac --json $here/emotions.json
fi
