"""Portraits that are asked for gaze, distance and emotion, one after the other, and what they do.

What is seen is judged by ``controls.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.checkpoint.release import Release
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS
from vasa_jax.evaluate import controls
from vasa_jax.generate.controls import ControlTracks
from vasa_jax.generate.controls import controls as asked_for
from vasa_jax.generate.talker import Talker
from vasa_jax.io.image import contact_sheet, write_image
from vasa_jax.metrics import identity

KINDS = ("gaze", "distance", "emotion")
GAZES_DEG = ((-20.0, 0.0), (-10.0, 0.0), (10.0, 0.0), (20.0, 0.0), (0.0, -10.0), (0.0, 10.0))
DISTANCES = (0.8, 0.9, 1.1, 1.25)
FELT = tuple(name for name in EMOTIONS if name != "neutral")
VALUES: dict[str, Sequence[Any]] = {"gaze": GAZES_DEG, "distance": DISTANCES, "emotion": FELT}
COLUMNS = {
    "gaze": ["neutral", *(f"{y:+.0f}, {p:+.0f} deg" for y, p in GAZES_DEG)],
    "distance": ["1.0", *map(str, DISTANCES)],
    "emotion": ["neutral", *FELT],
    "blink": [],
}

Sheets = dict[str, list[list[np.ndarray]]]  # kind, or "blink" -> a row of pictures per portrait


def tracks_of(kind: str, value: Any) -> ControlTracks:
    """What is asked for; of kind "neutral", a level gaze at the portrait's distance, no feeling."""
    wanted: dict[str, Any] = {"gaze": [0.0, 0.0], "distance": 1.0}
    if kind == "emotion":
        wanted = {"emotion": {value: 1.0}}
    elif kind == "neutral":
        wanted["emotion"] = {"neutral": 1.0}
    else:
        wanted[kind] = list(value) if kind == "gaze" else value
    return asked_for(**wanted)


def ask(
    release: Release,
    portraits: Iterable[Path],
    speech: np.ndarray,
    *,
    kinds: Sequence[str],
    most: int,
    seed: int,
    sampler: str | None,
    steps: int | None,
    judge: str | None,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], Sheets]:
    """A row per control and portrait (``controls.judge``), and pictures; ``most`` portraits."""
    rows: list[dict[str, Any]] = []
    sheets: Sheets = {kind: [] for kind in kinds}
    sheets["blink"] = []
    people = 0
    for picture in portraits:
        if people == most:
            break
        try:
            talker = Talker(release, picture)
        except UserError as error:
            say(f"left out: {error}")
            continue
        people += 1
        embed = identity.load_judge(judge) if judge else None
        own = embed([talker.image], [talker.face.landmarks])[0] if embed else None
        shown: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        base: controls.Look | None = None
        asked = [("neutral", None), *((kind, value) for kind in kinds for value in VALUES[kind])]
        for kind, value in asked:
            frames = list(
                talker.generate(
                    speech, controls=tracks_of(kind, value), seed=seed, sampler=sampler,
                    steps=steps, frame="crop", mark=False,
                )
            )  # fmt: skip
            look = controls.look(frames)
            if base is None:
                base = look
                sheets["blink"].append(controls.blink_frames(frames, look))
                for pictures in shown.values():
                    pictures.append(frames[look.typical])
                continue
            row = {"portrait": picture.stem, "kind": kind, "asked": value, "found": look.found}
            row.update(controls.judge(kind, value, look, base))
            if embed is not None and own is not None and look.found:
                middle = frames[look.typical]
                row["identity"] = float(embed([middle], [look.landmarks[look.typical]])[0] @ own)
            rows.append(row)
            shown[kind].append(frames[look.typical])
            say(f"{picture.stem}: {controls.line(row)}")
        for kind, pictures in shown.items():
            sheets[kind].append(pictures)
    return rows, sheets


def write_sheets(folder: Path, sheets: Sheets) -> list[Path]:
    """A contact sheet per kind that has pictures; their paths."""
    written = []
    for kind, rows in sheets.items():
        if any(rows):
            path = folder / f"{kind}.png"
            write_image(path, contact_sheet([r for r in rows if r], columns=COLUMNS[kind]))
            written.append(path)
    return written
