#!/usr/bin/env bash
# Everything in this record, on a machine that does nothing else; the browser: see tools/bench_page.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools/bench_page --seconds 25 --frame crop
tools/bench_page --browser --seconds 40 --name page_browser
tools/soak_page --minutes 30 --breaks 210
.venv/bin/pytest -m slow tests/generate/test_live.py tests/serve/test_server.py
