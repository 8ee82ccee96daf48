#!/usr/bin/env bash
# What a turning head uncovers, before and after: pictures, and stage 1 against rendered truth of both
# commits. VASA_MEDIA: folder with portraits_test/ and speech/; VASA_FACEKIT: facekit.npz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-22_far_side
source experiments/before.sh
source experiments/measure_release.sh
tree_before vasa_jax/nn/fill.py
face_before_after $here
measure_release $here
