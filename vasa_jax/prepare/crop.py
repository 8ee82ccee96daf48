"""Stage 4: one square per clip, its landmarks and its sound.

The square is fixed for the whole clip, so that the head moves in it as it did; what lies around the
head says where to look, so that of several people in a picture the right one is followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.data import records
from vasa_jax.data.records import KEY_FRAMES, LANDMARK_STEP, Record
from vasa_jax.face.find.align import Crop, crop_from_landmarks, extract, to_crop
from vasa_jax.io import clip_video
from vasa_jax.io.atomic import replacing
from vasa_jax.prepare import sound
from vasa_jax.prepare.config import PrepareConfig
from vasa_jax.prepare.tracks import square

AROUND = 1.3  # sides of the face's square that are searched for it


def path_of(folder: Path, key: str) -> Path:
    """Where the crop of a clip lies until it is packed."""
    return folder / "work" / "crop" / f"{key}.safetensors"


def crop(cfg: PrepareConfig, folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Makes the crop record of one clip; refuses what is no whole head in one square."""
    try:
        record = _record(cfg, folder, row)
    except UserError as error:
        return {"refused": " ".join(str(error).split())}
    with replacing(path_of(folder, row["key"])) as part:
        part.write_bytes(records.pack(record))
    meta = record.meta
    kept = {name: meta[name] for name in ("square", "face_px", "missing")}
    return {"result": {"frames": record.frames, **kept}}


def _record(cfg: PrepareConfig, folder: Path, row: dict[str, Any]) -> Record:
    start, stop = row["start"], row["stop"]
    landmarks, shape = _landmarks(_frames(row), row["box"])
    ok = np.isfinite(landmarks).all((1, 2))
    if ok.mean() < cfg.crop.found:
        raise UserError(f"a face was found in {ok.mean():.0%} of its frames alone")
    # A frame without a face has that of its neighbour.
    nearest = np.abs(np.flatnonzero(ok)[:, None] - np.arange(len(ok))).argmin(0)
    landmarks = landmarks[np.flatnonzero(ok)[nearest]]
    place, face_px = _square(cfg, landmarks, shape)
    squares = (extract(frame, place, cfg.size) for frame in _frames(row))
    in_crop = to_crop(landmarks, place) / LANDMARK_STEP
    if np.abs(in_crop).max() > 32767:
        raise UserError("its landmarks lie far outside the picture")
    count = stop - start
    if len(landmarks) != count:
        raise UserError(f"{len(landmarks)} of its {count} frames can be read")
    heard = row["sound"]
    samples = (
        sound.part_of(folder, row["source"], start, count)
        if heard else np.zeros(SAMPLES_PER_FRAME * count, np.int16)
    )  # fmt: skip
    return Record(
        "crop",
        {
            "id": row["key"], "person": "", "source": row["name"], "source_key": row["source"],
            "start": start, "square": [round(x, 2) for x in (place.cx, place.cy, place.size)],
            "face_px": round(face_px, 1), "sound": bool(heard), "speech": bool(heard),
            "size": cfg.size, "missing": int((~ok).sum()), "codec": row["codec"],
            "rate": row["rate"], "bits_per_pixel": row["bits_per_pixel"], "licence": cfg.licence,
        },
        {
            "video": clip_video.encoded(squares, crf=cfg.crop.crf, key_frames=KEY_FRAMES),
            "samples": samples, "landmarks": np.round(in_crop).astype(np.int16),
        },
    )  # fmt: skip


def _frames(row: dict[str, Any]):
    from vasa_jax.io.video import read_video

    return read_video(Path(row["path"]), row["start"], row["stop"])


def _landmarks(frames: Any, box: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """Landmarks (T, 478, 3) in px, NaN where none, and the picture's height and width."""
    from vasa_jax.face.find.finder import FaceTracker

    tracker = FaceTracker()
    rows, shape = [], (0, 0)
    x0 = y0 = x1 = y1 = 0
    for frame in frames:
        if not shape[0]:
            shape = frame.shape[:2]
            cx, cy, side = square(tuple(box))
            reach = AROUND * side / 2
            x0, x1 = (int(np.clip(v, 0, shape[1])) for v in (cx - reach, cx + reach))
            y0, y1 = (int(np.clip(v, 0, shape[0])) for v in (cy - reach, cy + reach))
        face = tracker.track(np.ascontiguousarray(frame[y0:y1, x0:x1]))
        at = np.array([x0, y0, 0], np.float32)
        rows.append(np.full((478, 3), np.nan) if face is None else face.landmarks + at)
    found = np.stack(rows).astype(np.float32) if rows else np.zeros((0, 478, 3), np.float32)
    if not len(found):
        raise UserError("none of its frames can be read")
    return found, shape


def _slid(center: float, size: float, limit: int, share: float) -> float:
    """A square's centre on one axis, moved into the picture by at most ``share`` of its side."""
    low, high = size / 2, limit - size / 2
    wanted = min(max(center, low), high) if low <= high else limit / 2
    return center + float(np.clip(wanted - center, -share * size, share * size))


def _square(cfg: PrepareConfig, landmarks: np.ndarray, shape: Any) -> tuple[Crop, float]:
    """The square of a clip, and the height of the face in px."""
    usual = crop_from_landmarks(np.median(landmarks, 0))
    xy = landmarks[:, :468, :2]
    low, high = xy.min((0, 1)), xy.max((0, 1))  # of the face in all frames
    center = np.array([usual.cx, usual.cy])
    needed = 2.0 * float(np.max([high - center, center - low]))
    if needed > cfg.crop.grow * usual.size:
        raise UserError("the head moves out of its square")
    size, (height, width) = max(usual.size, needed), shape
    place = Crop(
        _slid(usual.cx, size, width, cfg.crop.slide), _slid(usual.cy, size, height, cfg.crop.slide),
        size,
    )  # fmt: skip
    half = size / 2
    inside = [
        max(0.0, min(c + half, side) - max(c - half, 0.0)) / place.size
        for c, side in ((place.cx, width), (place.cy, height))
    ]
    outside = 1.0 - inside[0] * inside[1]
    if outside > cfg.crop.outside:
        raise UserError(f"{outside:.0%} of its square lies outside the picture")
    least = cfg.crop.least * cfg.size
    if place.size < least:
        raise UserError(f"too small: its square is {place.size:.0f} px, not {least:.0f}")
    return place, float(np.median(xy[..., 1].max(1) - xy[..., 1].min(1)))
