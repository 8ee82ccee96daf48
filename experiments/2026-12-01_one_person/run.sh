#!/usr/bin/env bash
# GRID's speaker s1 from 60 of 500 sentences; twelve others are judged. VASA_MEDIA holds the folder grid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-$PWD/out/one_person} vasa=.venv/bin/vasa-jax
mkdir -p "$out"/{raw,held,portraits,speech}
n=0
for clip in "$VASA_MEDIA"/grid/*.mp4; do
    n=$((n + 1))
    [ $((n % 8)) = 1 ] && [ "$(ls "$out/raw" | wc -l)" -lt 60 ] && cp -n "$clip" "$out/raw/"
    [ $((n % 8)) = 5 ] && [ "$(ls "$out/held" | wc -l)" -lt 12 ] && cp -n "$clip" "$out/held/"
done
.venv/bin/python - "$out" <<'PY'
import sys
from pathlib import Path
import soundfile
from vasa_jax.io.image import write_image
from vasa_jax.io.video import read_video, read_video_audio
out = Path(sys.argv[1])
for i, path in enumerate(sorted((out / "held").glob("*.mp4"))):
    if i < 3:
        write_image(out / "portraits" / f"s1_{i}.png", next(read_video(path, 10, 11)))
    samples, rate = read_video_audio(path)
    soundfile.write(out / "speech" / f"{path.stem}.wav", samples.mean(1), rate)
PY
"$vasa" prepare "$out/raw" -o "$out/clips" --config configs/prepare.py:grid --person s1
"$vasa" prepare report "$out/clips" --html "$out/clips/report.html"
"$vasa" finetune "$out/clips" -o "$out/release" --face-steps 300 --motion-steps 300 --student-steps 100 \
    --consent "speaker s1 of the GRID corpus, CC BY 4.0, who agreed to research and publication"
for when in before after; do
    release=$([ $when = before ] && echo lite || echo "$out/release")
    "$vasa" evaluate face "$release" --clips "$out/held" --pairs 1 --identities 2 --states 0 --head '' \
        --faces '' --judges mobileface --frames 5 --json "$out/face_$when.json"
    "$vasa" evaluate talk "$release" --portraits "$out/portraits" --speech "$out/speech" --pairs 8 \
        --seconds 3 --judges mobileface --json "$out/talk_$when.json"
done
