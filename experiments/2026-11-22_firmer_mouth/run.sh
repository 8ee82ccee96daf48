#!/usr/bin/env bash
# Measures the bundled release, motion alone and pictures. VASA_MEDIA: folder with portraits_test/
# and speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-22_firmer_mouth
for seed in 0 100 200; do
  tools/bench_samplers --speech "$VASA_MEDIA/speech" --seconds 12 --reference 0 --seed $seed \
    --samplers ddim --steps 16 --name "seed_$seed" --out out/firmer_mouth
done
.venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
  --speech "$VASA_MEDIA/speech" --pairs "${PAIRS:-10}" --seconds 8 --json $here/talk.json
