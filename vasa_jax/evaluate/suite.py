"""One call per clip, one table for many: everything measured, with confidence intervals.

``measure_clip`` walks through a video once, so that memory does not grow with its length beyond a
few pictures. ``summarise`` pools clips; ``table`` prints them beside real people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.core.types import FPS
from vasa_jax.face.find import align
from vasa_jax.metrics import identity, image, motion, open_mouth, sync, sync_net
from vasa_jax.metrics.phonemes import Phoneme

REFERENCE_FILE = Path(__file__).parent / "reference.json"
JUDGE_EVERY_FRAMES = 10
FACE_SQUARE = slice(48, 208)  # of a 256 px head square: from the forehead to the chin


class Row(NamedTuple):
    """One line of the table: key, text, digits, and which direction is good."""

    key: str
    text: str
    digits: int = 2
    weight: str = ""  # key of the counts that weigh the clips


ROWS = (
    Row("found", "face found, share of frames", 3),
    Row("identity_mobileface", "identity, mobileface cosine to portrait"),
    Row("identity_mobileface_worst", "  worst frame"),
    Row("identity_mobileface_position", "  0 different people .. 1 same person"),
    Row("identity_faceres", "identity, faceres cosine"),
    Row("identity_faceres_position", "  0 different people .. 1 same person"),
    Row("identity_dlib", "identity, dlib cosine", 3),
    Row("identity_dlib_position", "  0 different people .. 1 same person"),
    Row("correlation", "lip sync: correlation, peak"),
    Row("correlation_at_0", "  at no lag"),
    Row("lag_frames", "  lag, frames (+ mouth late)", 1),
    Row("abs_lag_frames", "  distance from no lag, frames", 1),
    Row("correlation_shifted", "  sound shifted by seconds, peak"),
    Row("correlation_foreign", "  sound of another recording, peak"),
    Row("closures", "closures on p b m", 2, "num_closures"),
    Row("closures_chance", "  by chance", 2, "num_closures"),
    Row("sync_net", "sync judge (a net): confidence"),
    Row("sync_net_at_0", "  at no lag"),
    Row("sync_net_shifted", "  sound shifted by seconds"),
    Row("rest_ratio", "mouth in silence / in speech"),
    Row("rest_quiver", "  its movement / in speech"),
    Row("blinks_per_minute", "blinks per minute", 1, "seconds"),
    Row("blink_ms", "  length, ms", 0),
    Row("head_motion_deg", "head motion, degrees per frame"),
    Row("head_std_deg", "  spread, degrees", 1),
    Row("head_jitter_deg", "  jitter, degrees"),
    Row("sway", "  sway, eye distances"),
    Row("scale_std", "distance, spread of log", 3),
    Row("gaze_std_deg", "gaze, spread in degrees", 1),
    Row("sharpness", "sharpness of the face"),
    Row("sharpness_ratio", "  relative to the portrait"),
    Row("mouth_contrast", "open mouth: contrast, of the face's light"),
    Row("mouth_detail", "  its fine detail", 3),
    Row("mouth_odd_hue", "  share greener or bluer than red", 3),
    Row("flicker", "flicker outside the head, levels"),
)


class Portrait(NamedTuple):
    """What the clip is compared with: the photograph and the face in it."""

    image: np.ndarray  # (Y, X, 3) uint8
    landmarks: np.ndarray  # (478, 3) px


def face_sharpness(image_u8: np.ndarray, landmarks_L3: np.ndarray) -> float:
    """Sharpness of the face at the model's resolution (256 px head square)."""
    square = align.extract(image_u8, align.crop_from_landmarks(landmarks_L3), 256)
    return image.sharpness(square[FACE_SQUARE, FACE_SQUARE])


def measure_clip(
    frames: Iterable[np.ndarray],
    phonemes: list[Phoneme],
    *,
    samples: np.ndarray | None = None,
    portrait: Portrait | None = None,
    others: Sequence[list[Phoneme]] = (),
    judges: Sequence[str] = ("mobileface", "faceres"),
    align_sound: bool = False,
    tracker: Any = None,
) -> dict[str, Any]:
    """All values of one clip. Frames are uint8 RGB at 25 per second, ``samples`` its sound (mono,
    16 kHz), without which the sync judge is silent.

    Without a portrait the first face found stands for it in identity, and sharpness has no ratio.
    ``others`` are phonemes of other recordings, for the sync that must not be there.
    """
    from vasa_jax.face.find.finder import FaceTracker

    tracker = tracker or FaceTracker()
    tracker.reset()
    lost = np.full((478, 3), np.nan, np.float32)
    landmarks: list[np.ndarray] = []
    judged: list[tuple[np.ndarray, np.ndarray]] = []
    sharp: list[float] = []
    steady = _Flicker()
    for i, frame in enumerate(frames):
        face = tracker.track(frame)
        landmarks.append(lost if face is None else face.landmarks)
        steady.add(frame, None if face is None else face.landmarks)
        if face is not None and i % JUDGE_EVERY_FRAMES == 0:
            # Only the head's square is kept: a long clip in high resolution would not fit.
            crop = align.crop_from_landmarks(face.landmarks)
            small = align.extract(frame, crop, 256)
            judged.append((small, align.to_crop(face.landmarks, crop) * 256))
            sharp.append(image.sharpness(small[FACE_SQUARE, FACE_SQUARE]))
    track = np.stack(landmarks)
    found: dict[str, Any] = {
        "frames": len(track),
        "seconds": len(track) / FPS,
        **motion.measure(track),
        **sync.measure(track, phonemes, align=align_sound),
        **({} if samples is None else sync_net.load().measure(track, samples)),
        "correlation_foreign": sync.foreign_correlation(track, list(others)),
        "num_phonemes": len(phonemes),
        "sharpness": float(np.median(sharp)) if sharp else float("nan"),
        "flicker": steady.value(),
    }
    found["abs_lag_frames"] = abs(found["lag_frames"])
    if portrait is not None:
        own = face_sharpness(portrait.image, portrait.landmarks)
        found["sharpness_ratio"] = found["sharpness"] / max(own, 1e-9)
    found.update(open_mouth.measure(judged))
    found.update(_identity(judged, portrait, judges))
    return found


class _Flicker:
    """``image.flicker`` of a stream, on the pixels outside the head in the first frame."""

    def __init__(self) -> None:
        self._keep: np.ndarray | None = None
        self._last: list[np.ndarray] = []
        self._sum, self._count = 0.0, 0

    def add(self, frame: np.ndarray, landmarks: np.ndarray | None) -> None:
        if self._keep is None:
            if landmarks is None:
                return
            mask = image.outside_head(landmarks, *frame.shape[:2])
            mask[::2], mask[:, ::2] = False, False  # a quarter of the pixels is plenty
            self._keep = mask
        if frame.shape[:2] != self._keep.shape or self._keep.sum() < 100:
            return
        self._last.append(image.luma(frame[self._keep]))
        if len(self._last) == 3:
            a, b, c = self._last
            self._sum += float(np.abs(b - (a + c) / 2).mean())
            self._count += 1
            self._last.pop(0)

    def value(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def _identity(
    judged: list[tuple[np.ndarray, np.ndarray]], portrait: Portrait | None, judges: Sequence[str]
) -> dict[str, float]:
    values: dict[str, float] = {}
    if not judged or (portrait is None and len(judged) < 2):
        return values
    images, points = [j[0] for j in judged], [j[1] for j in judged]
    for name in judges:
        embed = identity.load_judge(name)
        codes = embed(images, points)
        if portrait is None:
            own, codes = codes[0], codes[1:]
        else:
            own = embed([portrait.image], [portrait.landmarks])[0]
        cosine = codes @ own
        values[f"identity_{name}"] = float(cosine.mean())
        values[f"identity_{name}_worst"] = float(cosine.min())
        if bounds := reference().get("identity", {}).get(name):
            values[f"identity_{name}_position"] = identity.position(
                float(cosine.mean()), same=bounds["same"], different=bounds["different"]
            )
    return values


def reference() -> dict[str, Any]:
    """Values of real people, measured by ``vasa-jax evaluate video``; {} before they exist."""
    if not REFERENCE_FILE.exists():
        return {}
    return json.loads(REFERENCE_FILE.read_text())


def bootstrap(
    values: Sequence[float], weights: Sequence[float] | None = None, *, rounds: int = 2000
) -> dict[str, float]:
    """Weighted mean over clips and its 95 % interval by resampling clips (percentiles, seed 0).

    NaN values are left out; ``n`` says how many remain.
    """
    v = np.asarray(values, np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, np.float64)
    ok = np.isfinite(v) & np.isfinite(w) & (w > 0)
    v, w = v[ok], w[ok]
    if not len(v):
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    draws = np.random.default_rng(0).integers(0, len(v), (rounds, len(v)))
    means = (v[draws] * w[draws]).sum(1) / w[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float((v * w).sum() / w.sum())
    return {"mean": mean, "low": float(low), "high": float(high), "n": len(v)}


def summarise(clips: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and interval of every row that at least one clip has."""
    summary = {}
    for row in ROWS:
        values = [clip.get(row.key, float("nan")) for clip in clips]
        if not np.isfinite(values).any():
            continue
        weights = [clip.get(row.weight, 0.0) for clip in clips] if row.weight else None
        summary[row.key] = bootstrap(values, weights)
    return summary


def table(
    summary: dict[str, dict[str, float]], *, columns: dict[str, dict[str, Any]] | None = None
) -> str:
    """Markdown: value, 95 % interval, and one column per reference."""
    columns = (
        columns
        if columns is not None
        else {f"real: {name}": values for name, values in reference().get("people", {}).items()}
    )
    lines = ["| measure | value | 95 % | " + "".join(f"{c} | " for c in columns)]
    lines.append("|---|---|---|" + "---|" * len(columns))
    for row in ROWS:
        if row.key not in summary:
            continue

        def show(x: float, digits: int = row.digits) -> str:
            return "-" if x is None or not np.isfinite(x) else f"{x:.{digits}f}"

        s = summary[row.key]
        cells = [row.text, show(s["mean"]), f"{show(s['low'])} .. {show(s['high'])}"]
        cells += [show(c.get(row.key, {}).get("mean", float("nan"))) for c in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """JSON without NaN: unknown numbers become null, numpy becomes Python."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value


Progress = Callable[[int, int, str], None]
