#!/usr/bin/env bash
# Everything in this record, from a clean clone. MEDIA holds portraits_test, portraits_train, speech,
# clips and grid. Each part can be stopped and goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-out/mark}

tools/bench_mark clips "$out" --portraits "$MEDIA"/portraits_test/* "$MEDIA"/portraits_train/* \
    --speech "$MEDIA"/speech/*
tools/bench_mark robust "$out" --limit 51
tools/bench_mark clean "$out" --changes all "$MEDIA"/clips/*.mp4 "$out"/clips/*.mkv "$MEDIA"/grid/*.mp4 \
    "$MEDIA"/portraits_test/* "$MEDIA"/portraits_train/*
tools/bench_mark cost "$out"
tools/bench_mark card "$out" --name "mark_cpu2_$(date +%F)"
