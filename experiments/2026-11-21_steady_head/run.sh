#!/usr/bin/env bash
# Measures the bundled release. VASA_MEDIA: folder with portraits_test/ and speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
.venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
  --speech "$VASA_MEDIA/speech" --pairs "${PAIRS:-10}" --seconds 8 \
  --json experiments/2026-11-21_steady_head/talk.json
