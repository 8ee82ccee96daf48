"""Stage 5: what is in a clip: the head's fit in every frame, gaze, distance, foreground.

Emotion is left open: no net that may be given away and comes in a package tells it well enough
(its control stays off in these records).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE
from vasa_jax.core.errors import UserError
from vasa_jax.data.face_files import fitted_frames
from vasa_jax.data.records import KEY_FRAMES, Record, landmarks_of
from vasa_jax.face.find.segment import Segmenter
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import fit_portrait
from vasa_jax.face.head.head import Head
from vasa_jax.face.head.reader import inner_gap
from vasa_jax.io import clip_video

WORST_FIT = 0.012  # mean distance of landmarks, in half sides, beyond which a fit is none
BIN_DEG = 5.0  # of the histogram whose mode is a clip's gaze
BLINKING = 0.4  # lids beyond which a look says nothing of gaze
LENGTHS = 64  # clips are filled up to multiples of so many frames: few lengths, few programs
MATTE_CRF = 18
STEADY = 0.5  # share of the frame before in a matte: its edge must not flicker


def annotate(head: Head, crop: Record) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of ``records.Record`` kind "clip" beyond those of the crop, and notes for its meta.

    Raises UserError where the head model does not fit the face.
    """
    landmarks = landmarks_of(crop)
    reference = fit_portrait(head, landmarks[int(np.argmin(inner_gap(landmarks)))])
    if reference.error > WORST_FIT:
        raise UserError(f"the head model does not fit the face (off by {reference.error:.3f})")
    frames = len(landmarks)
    padded = np.pad(landmarks, ((0, -frames % LENGTHS), (0, 0), (0, 0)), mode="edge")
    motion, placement = (x[:frames] for x in fitted_frames(head, padded, reference))
    blinks = [EXPRESSION.start + i for i in heads.BLINKS]
    gaze = main_gaze(motion[:, GAZE], motion[:, blinks].max(1))
    arrays = {
        "motion": motion.astype(np.float16), "placement": placement,
        "identity": np.asarray(reference.identity, np.float32),
        "shape": np.asarray(reference.shape, np.float16),
        "gaze": motion[:, GAZE].astype(np.float16),
        "distance": (np.median(placement[:, 2]) / placement[:, 2]).astype(np.float16),
        "matte": matte(crop.arrays["video"]),
    }  # fmt: skip
    notes = {
        "fit_error": round(float(reference.error), 5), "gaze": [round(float(x), 4) for x in gaze],
        "yaw": _middle(motion[:, 0]), "pitch": _middle(motion[:, 1]),
    }  # fmt: skip
    return arrays, notes


def _middle(angle_T: np.ndarray) -> float:
    """Median in degrees."""
    return round(float(np.degrees(np.median(angle_T))), 1)


def main_gaze(gaze_T2: np.ndarray, lids_T: np.ndarray) -> np.ndarray:
    """Where somebody looks in a clip, (2,) rad: the mean of the fullest cell of a histogram.

    VASA-1 section 3.2 finds the main gaze of a clip so. Frames with shut eyes do not count, unless
    all are.
    """
    looks = gaze_T2[lids_T < BLINKING]
    looks = looks if len(looks) else gaze_T2
    cells = np.floor(np.degrees(looks) / BIN_DEG + 0.5).astype(int)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    return looks[which.reshape(-1) == int(counts.argmax())].mean(0)


def matte(video: np.ndarray) -> np.ndarray:
    """The foreground of a clip's pictures as an MP4 of luma, 256 px."""
    segment = Segmenter()

    def mattes():
        before = None
        for frame in clip_video.decoded(video):
            seen = segment(frame)
            before = seen if before is None else STEADY * before + (1.0 - STEADY) * seen
            yield np.round(255.0 * before).astype(np.uint8)

    return clip_video.encoded(mattes(), crf=MATTE_CRF, key_frames=KEY_FRAMES)
