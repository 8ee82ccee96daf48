#!/usr/bin/env bash
# Measures real people again: correlation, its value with shifted and foreign sound, closures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${VASA_MEDIA:?folder with clips/ and grid/}"
.venv/bin/vasa-jax evaluate video "$VASA_MEDIA"/clips/*.mp4 --align --json out/interviews.json
.venv/bin/vasa-jax evaluate video $(ls "$VASA_MEDIA"/grid/*.mp4 | awk 'NR % 12 == 1') \
  --json out/grid.json
