#!/usr/bin/env bash
# Measures the bundled release. VASA_MEDIA: folder with portraits_test/ and speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-21_lite_release_4
.venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
  --speech "$VASA_MEDIA/speech" --pairs "${PAIRS:-10}" --seconds 8 --json $here/talk.json
.venv/bin/vasa-jax evaluate controls lite --portraits vasa_jax/assets/example/portrait.png \
  --speech vasa_jax/assets/example/speech.flac --most 1 --json $here/controls.json \
  --sheets out/controls
.venv/bin/vasa-jax generate vasa_jax/assets/example/portrait.png \
  vasa_jax/assets/example/speech.flac -o out/example.mp4 --sheet $here/example.png
