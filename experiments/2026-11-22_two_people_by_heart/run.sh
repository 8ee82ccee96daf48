#!/usr/bin/env bash
# Two people by heart, with every loss of the full stage 1. VASA_FACEKIT: facekit.npz. Renders
# twelve people (the head's landmarks are found on all of them), learns the first two. A first
# argument names another folder; what was interrupted goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${1:-out/two_people} here=experiments/2026-11-22_two_people_by_heart
run="$work/run"
.venv/bin/python -m vasa_jax.synth.person.picture stills "$work/stills" --identities 12 --size 512 \
  --head "$VASA_FACEKIT"
[ -f "$work/head.npz" ] ||
  .venv/bin/python tools/make_head.py "$VASA_FACEKIT" "$work/head.npz" --stills "$work/stills"
.venv/bin/python -m vasa_jax.data.faces "$work/faces" --head "$work/head.npz" \
  --stills "$work/stills" --limit 2
export VASA_FACES="$work/faces"
.venv/bin/vasa-jax train --config configs/face_512.py:overfit --workdir "$run"
.venv/bin/python - "$run" "$here" <<'PY'
"""PSNR of 120 random pairs of the two people, and the pictures of some steps side by side."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from vasa_jax.checkpoint.train_state import read_params
from vasa_jax.core.config import load_config
from vasa_jax.data.faces import FacePairs
from vasa_jax.io.image import read_image, write_image
from vasa_jax.train.log import read_log

run, here = Path(sys.argv[1]), Path(sys.argv[2])
task = load_config("configs/face_512.py:overfit").task()
step, params = read_params(run, item="ema")
if step < task.cfg.optim.steps:
    sys.exit(f"stopped at step {step}; the same command goes on")
data = dataclasses.replace(task.cfg.data, self_pairs=0.0)
rows = FacePairs(data, held_out=True).batches(7, 0, 2)
scores = [task._judge(params, next(rows), task.constants.head)[0] for _ in range(60)]
table = {
    name: {"mean": float(np.mean(values)), "worst": float(np.min(values))}
    for name in scores[0]
    for values in [[float(s[name]) for s in scores]]
}
shown = ("step", "psnr", "psnr_eyes", "psnr_mouth")
history = [{k: row[k] for k in shown} for row in read_log(run, "evaluate")]
results = {"step": step, "random_pairs": 120, "scores": table, "history": history}
(here / "config.json").write_bytes((run / "config.json").read_bytes())
(here / "results.json").write_text(json.dumps(results, indent=1) + "\n")
pictures = sorted((run / "pictures" / "pairs").glob("*.png"))
chosen = [pictures[i] for i in (1, 3, len(pictures) // 3, -1)]
sheet = np.concatenate([read_image(p) for p in chosen], 1)
write_image(here / "sheet.png", sheet.repeat(2, 0).repeat(2, 1))
print(json.dumps(table, indent=1), *(p.name for p in chosen))
PY
