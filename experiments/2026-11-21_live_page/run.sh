#!/usr/bin/env bash
# run.sh RECORDING... : sync of live streams by look-ahead, then latency of the live server by part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for ahead in 3 1 0; do
  tools/bench_samplers --speech "$@" --samplers ddim_lids --steps 8 --reference 0 --hop 2 \
    --ahead "$ahead" --name "ahead$ahead" --out out/live_page
done
tools/bench_page --seconds 60 --out out/live_page
