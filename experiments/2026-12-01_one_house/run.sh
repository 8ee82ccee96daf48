#!/usr/bin/env bash
# Two commits beside each other: losses, motion and frames, speed. BEFORE and AFTER name them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD here=$PWD/experiments/2026-12-01_one_house out=${OUT:-$PWD/out/house}
mkdir -p "$out"
for commit in "$BEFORE" "$AFTER"; do
    git worktree add --force --detach "$out/tree_$commit" "$commit"
done
# In the tree of a commit: its own code with this environment.
in_tree() { (cd "$out/tree_$1" && shift && PYTHONPATH=$PWD "$root/.venv/bin/python" "$@"); }

# The student's teacher: a smoke run of the older commit.
in_tree "$BEFORE" -m vasa_jax train --config configs/motion_lite.py:smoke --workdir "$out/teacher"
for config in face_256_lite face_512 motion_lite motion_lite_distill; do
    tools/loss_compare "$BEFORE" "$AFTER" --config "configs/$config.py:smoke" --steps "${STEPS:-20}" \
        --set "$([ $config = motion_lite_distill ] && echo "teacher=$out/teacher" || echo seed=0)" \
        2>&1 | tee "$out/losses_$config.txt" || true
done
for commit in "$BEFORE" "$AFTER"; do
    in_tree "$commit" "$here/same_frames.py" "$out/frames_$commit.json"
done
cmp "$out/frames_$BEFORE.json" "$out/frames_$AFTER.json" && echo "motion and frames are equal to the bit"

# Speed, in turns, on a machine that does nothing else (BENCH=1).
for turn in ${BENCH:+1 2 3}; do
    for commit in "$BEFORE" "$AFTER"; do
        in_tree "$commit" -m vasa_jax bench --only offline --only live --json \
            >"$out/bench_${commit}_$turn.json"
    done
done
for commit in "$BEFORE" "$AFTER"; do git worktree remove --force "$out/tree_$commit"; done
