"""Stage 3: faces through shots, one person each, cut into clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.types import FPS
from vasa_jax.face.find.align import HEIGHTS_PER_CROP, LIFT, WIDTH_TO_HEIGHT
from vasa_jax.prepare import shots
from vasa_jax.prepare.config import PrepareConfig, TrackConfig

Box = tuple[float, float, float, float]
LAST = 3  # frames at the very end without a look that still belong to a clip


def scan(cfg: PrepareConfig, row: dict[str, Any]) -> dict[str, Any]:
    """One piece of a video looked through: changes and faces, frames ``start`` to ``stop``.

    Returns {"frames", "change", "across", "faces"}; faces are [frame, box, score] in px of the
    upright picture. Pure: a piece is the same, whoever looks through it and when.
    """
    from vasa_jax.core.errors import UserError
    from vasa_jax.face.find.finder import FaceFinder
    from vasa_jax.io.video import read_video

    start, stop = row["start"], row["stop"]
    before = max(start - 1, 0)
    finder = FaceFinder()
    tiny: list[np.ndarray] = []
    faces: list[Any] = []
    try:
        frames = read_video(Path(row["path"]), before, stop + shots.FLASH)
        for i, frame in enumerate(frames, before):
            tiny.append(shots.small(frame))
            if start <= i < stop and i % cfg.tracks.every == 0:
                for face in finder.find(frame, max_faces=16):
                    faces.append([i, [round(float(x), 1) for x in face.box], round(face.score, 3)])
    except UserError as error:
        return {"refused": " ".join(str(error).split())}
    first = start - before
    count = max(0, min(stop - start, len(tiny) - first))
    change, across = [], []
    for k in range(first, first + count):
        change.append(round(shots.change(tiny[k - 1], tiny[k]), 4) if k else 0.0)
        after = tiny[min(k + shots.FLASH, len(tiny) - 1)]
        across.append(round(shots.change(tiny[k - 1], after), 4) if k else 0.0)
    return {"result": {"frames": count, "change": change, "across": across, "faces": faces}}


@dataclasses.dataclass
class Track:
    """One face, look after look."""

    frames: list[int]
    boxes: list[Box]


def clips(cfg: PrepareConfig, source: str, pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clips of a source from all that was seen of it, in order; refused ones with a reason.

    A clip is {"key", "start", "stop", "box"} or {"key", "refused"}; its box, in px, is where the
    head was seen in all of it.
    """
    change = np.concatenate([p["change"] for p in pieces] or [[]])
    across = np.concatenate([p["across"] for p in pieces] or [[]])
    frames = len(change)
    if not frames:
        return []
    edges = [0, *shots.cuts(cfg.shots, change, across), frames]
    seen: dict[int, list[Box]] = {}
    for piece in pieces:
        for frame, box, _ in piece["faces"]:
            seen.setdefault(frame, []).append(tuple(box))
    made: list[dict[str, Any]] = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        looks = [(f, seen.get(f, [])) for f in range(first, end) if f % cfg.tracks.every == 0]
        for track in link(cfg.tracks, looks):
            made += _pieces(cfg, source, track, (first, end), seen, len(made))
    return made


def link(cfg: TrackConfig, looks: list[tuple[int, list[Box]]]) -> list[Track]:
    """Faces of one shot joined by how much their boxes overlap, the best first."""
    done: list[Track] = []
    alive: list[Track] = []
    for frame, boxes in looks:
        oldest = frame - (cfg.gap + 1) * cfg.every
        done += [t for t in alive if t.frames[-1] < oldest]
        alive = [t for t in alive if t.frames[-1] >= oldest]
        pairs = sorted(
            ((_overlap(t.boxes[-1], b), -i, -j) for i, t in enumerate(alive)
             for j, b in enumerate(boxes)), reverse=True,
        )  # fmt: skip
        taken_t: set[int] = set()
        taken_b: set[int] = set()
        for overlap, i, j in pairs:
            if overlap < cfg.overlap or -i in taken_t or -j in taken_b:
                continue
            taken_t.add(-i)
            taken_b.add(-j)
            alive[-i].frames.append(frame)
            alive[-i].boxes.append(boxes[-j])
        alive += [Track([frame], [b]) for j, b in enumerate(boxes) if j not in taken_b]
    return sorted(done + alive, key=lambda t: (t.frames[0], t.boxes[0]))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def square(box: Box) -> tuple[float, float, float]:
    """Centre and side of the crop around a face's box, as ``crop_from_landmarks`` has it."""
    width, height = box[2] - box[0], box[3] - box[1]
    h = max(height, WIDTH_TO_HEIGHT * width, 1.0)
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - LIFT * h, HEIGHTS_PER_CROP * h


def _pieces(
    cfg: PrepareConfig, source: str, track: Track, shot: tuple[int, int],
    seen: dict[int, list[Box]], number: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """A track as clips of allowed length."""
    shortest, longest = (round(s * FPS) for s in cfg.tracks.seconds)
    # Between looks a face was there as long as nothing was cut.
    start = shot[0] if track.frames[0] - shot[0] < cfg.tracks.every else track.frames[0]
    stop = track.frames[-1] + 1
    stop = shot[1] if shot[1] - stop < cfg.tracks.every + LAST else stop
    count = max(1, -(-(stop - start) // longest))
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    made = []
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        key = f"{source}-{a:06d}-{number + i}"
        inside = [k for k, f in enumerate(track.frames) if a <= f < b] or [0]
        boxes = np.array([track.boxes[k] for k in inside])
        reason = _refused(cfg, track, inside, boxes, seen, b - a, shortest)
        if reason:
            made.append({"key": key, "refused": reason, "start": a, "stop": b})
        else:
            box = [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]
            made.append({"key": key, "start": a, "stop": b, "box": [float(x) for x in box]})
    return made


def _refused(
    cfg: PrepareConfig, track: Track, inside: list[int], boxes: np.ndarray,
    seen: dict[int, list[Box]], frames: int, shortest: int,
) -> str:  # fmt: skip
    """Why a piece of a track is no clip; empty where it is one."""
    if frames < shortest:
        return f"too short: {frames / FPS:.1f} of {shortest / FPS:.1f} s"
    side = float(np.median([square(tuple(b))[2] for b in boxes]))
    least = cfg.crop.least * cfg.size
    if side < least:
        return f"too small: its square is {side:.0f} px, not {least:.0f}"
    crowded = 0
    for k in inside:
        own = track.boxes[k]
        cx, cy, s = square(own)
        for other in seen[track.frames[k]]:
            x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
            large = (other[3] - other[1]) > cfg.tracks.beside * (own[3] - own[1])
            if other != own and large and max(abs(x - cx), abs(y - cy)) < s / 2:
                crowded += 1
                break
    if crowded > 0.2 * len(inside):
        return "two people in one square"
    return ""
