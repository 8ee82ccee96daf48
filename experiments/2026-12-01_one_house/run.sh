#!/usr/bin/env bash
# Two commits beside each other: losses, motion and frames, speed. BEFORE and AFTER name them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-12-01_one_house out=${OUT:-$PWD/out/house}
mkdir -p "$out"
# The student's teacher: a smoke run of the older commit.
git worktree add --force --detach "$out/tree" "$BEFORE"
(cd "$out/tree" && PYTHONPATH=$PWD "$OLDPWD/.venv/bin/python" -m vasa_jax train \
    --config configs/motion_lite.py:smoke --workdir "$out/teacher")
git worktree remove --force "$out/tree"
for config in face_256_lite face_512 motion_lite motion_lite_distill; do
    tools/loss_compare "$BEFORE" "$AFTER" --config "configs/$config.py:smoke" --steps "${STEPS:-20}" \
        --set "$([ $config = motion_lite_distill ] && echo "teacher=$out/teacher" || echo seed=0)" \
        2>&1 | tee "$out/losses_$config.txt" || true
done
for commit in "$BEFORE" "$AFTER"; do
    git worktree add --force --detach "$out/tree_$commit" "$commit"
    (cd "$out/tree_$commit" && PYTHONPATH=$PWD "$OLDPWD/.venv/bin/python" \
        "$OLDPWD/$here/same_frames.py" "$OLDPWD/$out/frames_$commit.json")
    git worktree remove --force "$out/tree_$commit"
done
diff "$out/frames_$BEFORE.json" "$out/frames_$AFTER.json" && echo "motion and frames are equal to the bit"
