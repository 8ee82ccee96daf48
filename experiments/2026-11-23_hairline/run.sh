#!/usr/bin/env bash
# Temples under hair, before and after: pictures, and stage 1 against rendered truth of both commits;
# then all that is known of the release. VASA_MEDIA: folder with portraits_test/ and speech/;
# VASA_FACEKIT: facekit.npz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/2026-11-23_hairline
source experiments/before.sh
source experiments/measure_release.sh
tree_before vasa_jax/face/warp/hairline.py
face_before_after $here --names 303 050 079 081 --yaw -16 -10 10 16
PAIRS=${PAIRS:-30} measure_release $here
