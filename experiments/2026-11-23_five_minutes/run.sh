#!/usr/bin/env bash
# Five minutes of speech without a pause for the model. VASA_MEDIA: folder with portraits_test/ and
# speech/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-23_five_minutes
.venv/bin/python $here/drift.py $here/results.json $here/sheet.jpg \
  --portrait "$VASA_MEDIA/portraits_test/077.jpg" --speech "$VASA_MEDIA/speech/case1_talker.flac"
