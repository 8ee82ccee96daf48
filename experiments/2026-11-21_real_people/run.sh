#!/usr/bin/env bash
# Measures real people and keeps them as the reference columns.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${VASA_MEDIA:?folder with clips/, grid/ and portraits_test/}"
.venv/bin/vasa-jax evaluate identity "$VASA_MEDIA"/clips/*.mp4 \
  --portraits "$VASA_MEDIA/portraits_test" --judges mobileface,faceres,dlib --reference
.venv/bin/vasa-jax evaluate video "$VASA_MEDIA"/clips/*.mp4 --align --reference interviews
.venv/bin/vasa-jax evaluate video $(ls "$VASA_MEDIA"/grid/*.mp4 | awk 'NR % 12 == 1') \
  --reference GRID
