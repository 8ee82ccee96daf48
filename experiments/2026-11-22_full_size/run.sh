#!/usr/bin/env bash
# One update of the full stage 1 at 512 px, batch 2, on this machine: alone, 23 GB of memory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
.venv/bin/pytest -m slow tests/e2e/test_full_size.py -s
