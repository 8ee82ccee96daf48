#!/usr/bin/env bash
# Everything in this record, from a clean clone. MEDIA holds portraits_test, portraits_train, speech,
# clips and grid. Each part can be stopped and goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-out/mark}
train=$MEDIA/portraits_train test=$MEDIA/portraits_test speech=$MEDIA/speech

tools/bench_mark clips "$out" \
    --portraits "$train"/{043,045,047}.jpg "$test"/{051,066}.jpg \
    "$train"/{001,003,035,040,178,201,245,252,271}.jpg "$test"/302.jpg \
    --speech "$speech"/{german1,english_female,french1,chinese1_haierlizhi,eng,reading,fashion_blogger}.flac
rm -f "$out"/clips/{047,051,066,252,271,302}_full.mkv    # the largest whole pictures: an hour of coding
tools/bench_mark attack "$out"
tools/bench_mark robust "$out"
tools/bench_mark clean "$out" --changes all "$MEDIA"/clips/*.mp4 "$MEDIA"/grid/*.mp4 "$test"/* "$train"/*
tools/bench_mark cost "$out"
tools/bench_mark card "$out" --name "mark_cpu2_$(date +%F)"
