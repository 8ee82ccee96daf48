#!/usr/bin/env bash
# Reproduces this experiment from a clean clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${VASA_MEDIA:?folder with portraits_test/ and speech/}"
.venv/bin/vasa-jax evaluate talk lite --portraits "$VASA_MEDIA/portraits_test" \
  --speech "$VASA_MEDIA/speech" --pairs 24 --json "$(dirname "$0")/results.json"
