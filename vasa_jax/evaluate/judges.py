"""How sure identity judges are: the same people in videos against different people in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.evaluate.suite import Portrait
from vasa_jax.face.find.finder import FaceTracker
from vasa_jax.io.video import read_video
from vasa_jax.metrics import identity

MOST_SHOTS = 20  # of a video, one a second


def shots(video: Path) -> list[Portrait]:
    """A picture a second of a video of one person, where a face is found."""
    tracker, found = FaceTracker(), []
    for i, frame in enumerate(read_video(video)):
        if i % 25 == 0 and (face := tracker.track(frame)) is not None:
            found.append(Portrait(frame, face.landmarks))
    return found[:MOST_SHOTS]


def calibrate(
    judge: str, people: Sequence[Portrait], seen: Sequence[Sequence[Portrait]]
) -> dict[str, Any]:
    """Similarities of one judge: of pictures of different people, of shots of the same.

    ``threshold`` is where both are mistaken equally often, ``error`` how often that is.
    """
    embed = identity.load_judge(judge)
    codes = embed([p.image for p in people], [p.landmarks for p in people])
    different = (codes @ codes.T)[np.triu_indices(len(codes), 1)]
    same: list[float] = []
    for of_one in seen:
        own = embed([s.image for s in of_one], [s.landmarks for s in of_one])
        same.extend((own @ own[0])[1:])
    threshold, wrong = identity.equal_error_threshold(np.array(same), different)
    return {
        "same": float(np.mean(same)),
        "same_5": float(np.percentile(same, 5)),
        "different": float(different.mean()),
        "different_95": float(np.percentile(different, 95)),
        "threshold": threshold,
        "error": wrong,
        "pairs": [len(same), len(different)],
    }
