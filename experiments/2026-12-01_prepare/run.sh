#!/usr/bin/env bash
# A nasty folder through `prepare`, and what became of each video. VASA_MEDIA holds the folder grid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-12-01_prepare out=${OUT:-$PWD/out/prepare}
.venv/bin/python "$here/nasty.py" "$VASA_MEDIA/grid" "$out/raw" ${HOUR:+--hour}
.venv/bin/vasa-jax prepare "$out/raw" -o "$out/clips" --config configs/prepare.py:small --workers 1
.venv/bin/python "$here/became.py" "$out/clips" | tee "$out/became.md"
.venv/bin/vasa-jax prepare report "$out/clips" --html "$out/report.html"

# GRID: time, and the sync judge on clips, on their sound moved, on another's, and on noise.
mkdir -p "$out/grid"
ls "$VASA_MEDIA"/grid/*.mp4 | awk 'NR%8==1' | head -60 | xargs -I{} cp -n {} "$out/grid/"
time .venv/bin/vasa-jax prepare "$out/grid" -o "$out/grid_clips" --config configs/prepare.py:grid --person s1
.venv/bin/python "$here/sync_thresholds.py" "$out/grid_clips"
