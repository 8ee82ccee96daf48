#!/usr/bin/env bash
# Whole pictures with and without the portrait's own detail. VASA_MEDIA: folder with portraits_test/ and
# speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-23_detail
.venv/bin/python $here/measure.py $here/results.json $here/sheet.jpg \
  --portraits "$VASA_MEDIA/portraits_test" --speech "$VASA_MEDIA/speech/english_female.flac" \
  --shown 067 302 303 051
