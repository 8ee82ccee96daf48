#!/usr/bin/env bash
# What the record's "must show" stands on, from a clean clone with .venv (tools/make_venv .venv dev).
# MEDIA holds speech/; SMALL is a file system of its own of some 60 MB, which will be filled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${MEDIA:?folder with speech/}" "${SMALL:?a small file system}"
tools/soak_kills --events 10 --seed 21 --small-disk "$SMALL"
.venv/bin/pytest -q tests/e2e/test_generate_killed.py
.venv/bin/pytest -q -s tests/serve/test_strangers.py -k two_hundred
.venv/bin/python experiments/2026-11-30_every_input_that_failed/recordings.py "$MEDIA/speech"
tools/test
