#!/usr/bin/env bash
# Trains the sync judge (about ten minutes on two cores) and ranks recordings of people it never met.
# With RANK=1 only ranks, with the packaged weights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${VASA_MEDIA:?folder with grid/ and clips/}" "${VASA_DATA:?folder for shards, with motion_synthetic}"
if [[ -z ${RANK:-} ]]; then
  .venv/bin/python -m vasa_jax.prepare.lips acted "$VASA_DATA/lips_acted" --folder "$VASA_DATA/motion_synthetic"
  .venv/bin/python -m vasa_jax.prepare.lips videos "$VASA_DATA/lips_grid" --folder "$VASA_MEDIA/grid"
  .venv/bin/vasa-jax train --config configs/sync_net.py --workdir runs/sync_net
  .venv/bin/python tools/make_sync_net.py runs/sync_net
fi
.venv/bin/python tools/make_sync_net.py --rank "$VASA_MEDIA"/clips/*.mp4 |
  tee experiments/2026-11-22_sync_judge/ranks.json
