"""Does the face do what was asked? Gaze, distance and emotion against a clip that asked for none.

Every value is a difference to the same portrait saying the same words with level gaze at its own
distance and a neutral face, so that a person's build and the judge's constant errors drop out.

Emotions are recognised by signs that landmarks show on anybody (the action units of EMFACS): each
is a direction in eight facial distances, and the nearest direction is the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.metrics import motion, sync

SETTLE_FRAMES = 15  # the start of a clip does not count

# Signs of an emotion: raised corners of the mouth, its width, inner and outer brows, open eyes,
# raised upper lip, open mouth, and by how much one corner is higher than the other.
SIGNS = ("corners", "width", "brow_inner", "brow_outer", "eyes", "upper_lip", "open", "one_sided")
EMOTION_SIGNS: dict[str, tuple[float, ...]] = {
    "happy": (1, 1, 0, 0, -0.3, 0.5, 0, 0),
    "sad": (-1, -0.3, 0.7, -0.5, -0.3, 0, 0, 0),
    "angry": (-0.3, -0.3, -1, -0.7, 0, 0, 0, 0),
    "surprised": (0, -0.3, 1, 1, 1, 0, 0.7, 0),
    "fearful": (-0.3, 0.6, 1, 0, 1, 0, 0.3, 0),
    "disgusted": (-0.3, 0, -0.7, -0.5, -0.5, 1, 0, 0),
    "contempt": (0.3, 0, 0, 0, 0, 0, 0, 1),
}
# What one unit of a sign is worth, in eye distances: about the change of a plain expression.
UNITS = np.array([0.05, 0.08, 0.04, 0.04, 0.06, 0.03, 0.1, 0.04])


class Look(NamedTuple):
    """One clip's face, as medians over its settled frames."""

    found: float
    gaze_deg: np.ndarray  # (2,)
    scale: float
    signs: np.ndarray  # (8,)
    landmarks: np.ndarray  # (T, 478, 3)
    typical: int  # a settled frame with open eyes and a quiet mouth


def facial_signs(landmarks_TL3: np.ndarray) -> np.ndarray:
    """(T, 8) values of ``SIGNS`` in eye distances, in the head's own frame; more is more."""
    lm = np.asarray(landmarks_TL3, np.float64)
    pose = motion.head_pose(lm)
    points = motion._upright(lm[:, :468])
    points = np.einsum("tij,tpi->tpj", pose["rotation"], points - points[:, :1])
    points /= pose["scale"][:, None, None]

    def height(*index: int) -> np.ndarray:
        return points[:, index, 1].mean(1)

    nose, eyes = height(2, 98, 327), height(33, 133, 362, 263)
    return np.stack(
        [
            height(61, 291) - nose,
            np.abs(points[:, 61, 0] - points[:, 291, 0]),
            height(55, 285, 107, 336) - eyes,
            height(70, 300, 63, 293) - eyes,
            motion.eye_opening(lm),
            height(0, 37, 267) - nose,
            sync.lip_aperture(lm),
            height(61) - height(291),
        ],
        -1,
    )


def look(frames: Sequence[np.ndarray] | Iterable[np.ndarray]) -> Look:
    """Landmarks and medians of a clip of uint8 frames."""
    from vasa_jax.face.find.finder import FaceTracker

    tracker, lost = FaceTracker(), np.full((478, 3), np.nan, np.float32)
    track = np.stack([lost if (f := tracker.track(x)) is None else f.landmarks for x in frames])
    return look_of(track)


def look_of(landmarks_TL3: np.ndarray) -> Look:
    """The same from landmarks (T, 478, 3); frames without a face are NaN."""
    track = np.asarray(landmarks_TL3)
    settled = track[min(SETTLE_FRAMES, len(track) // 2) :]
    found = float(np.isfinite(track[:, 0, 0]).mean())
    if not np.isfinite(settled[:, 0, 0]).any():
        return Look(found, np.full(2, np.nan), np.nan, np.full(8, np.nan), track, len(track) // 2)
    signs = facial_signs(settled)
    middle = np.nanmedian(signs, 0)
    # Lids count double: a blink is the one thing that must not be on the sheet.
    distance = (np.abs(signs - middle) / UNITS * [1, 1, 1, 1, 2, 1, 1, 1]).sum(1)
    typical = int(np.nanargmin(distance)) + len(track) - len(settled)
    return Look(
        found=found,
        gaze_deg=np.degrees(np.nanmedian(motion.gaze(settled), 0)),
        scale=float(np.nanmedian(motion.head_pose(settled)["scale"])),
        signs=middle,
        landmarks=track,
        typical=typical,
    )


def recognise_emotion(change_8: np.ndarray) -> tuple[str, float]:
    """The emotion whose signs a change of the face is nearest to, and the cosine to them."""
    change = np.asarray(change_8) / UNITS
    norm = np.linalg.norm(change)
    if not np.isfinite(norm) or norm < 1e-9:
        return "neutral", 0.0
    cosine = {
        name: float(change @ np.array(s) / norm / np.linalg.norm(s))
        for name, s in EMOTION_SIGNS.items()
    }
    best = max(cosine, key=lambda name: cosine[name])
    return best, cosine[best]


def judge(kind: str, asked: Any, seen: Look, base: Look) -> dict[str, Any]:
    """What was measured for one control, and its error."""
    if kind == "gaze":
        got = seen.gaze_deg - base.gaze_deg
        return {"measured": got.tolist(), "error_deg": float(np.linalg.norm(got - asked))}
    if kind == "distance":
        got = base.scale / seen.scale
        return {"measured": float(got), "error_ratio": float(abs(got / asked - 1))}
    change = seen.signs - base.signs
    change[-1] = abs(change[-1])  # either side; a face is never quite even by itself
    name, cosine = recognise_emotion(change)
    wanted = np.array(EMOTION_SIGNS[asked])
    strength = change / UNITS @ wanted / np.linalg.norm(wanted)
    return {
        "measured": name,
        "recognised": name == asked,
        "cosine": cosine,
        "strength": float(strength),
        "signs": dict(zip(SIGNS, (change / UNITS).tolist(), strict=True)),
    }


def blink_frames(frames: Sequence[np.ndarray], seen: Look, *, around: int = 4) -> list[np.ndarray]:
    """The pictures of the clip's deepest blink, from ``around`` frames before to after."""
    opening = motion.eye_opening(seen.landmarks)
    blinks = motion.find_blinks(opening)
    # A face that is lost while its eyes shut may show nothing of the blink.
    seen_ones = [(a, b) for a, b in blinks if np.isfinite(opening[a:b]).any()]
    lowest = [a + int(np.nanargmin(opening[a:b])) for a, b in seen_ones]
    if not lowest:
        return []
    at = min(lowest, key=lambda i: opening[i])
    return list(frames[max(0, at - around) : at + around + 1])


def line(row: dict[str, Any]) -> str:
    """One control in words."""
    if row["kind"] == "gaze":
        yaw, pitch = row["measured"]
        return (f"gaze {row['asked'][0]:+.0f}, {row['asked'][1]:+.0f} -> {yaw:+.1f}, {pitch:+.1f}"
                f" (error {row['error_deg']:.1f} deg)")  # fmt: skip
    if row["kind"] == "distance":
        return f"distance {row['asked']} -> {row['measured']:.3f}"
    return (f"{row['asked']} -> {row['measured']} (cosine {row['cosine']:.2f}, "
            f"strength {row['strength']:+.2f})")  # fmt: skip


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean errors, share of emotions recognised, slope of gaze, identity: of kinds that occur."""
    kinds = {r["kind"] for r in rows}

    def mean(key: str, kind: str) -> float:
        values = [r[key] for r in rows if r["kind"] == kind and key in r]
        return float(np.nanmean(values)) if values else float("nan")

    gaze = [r for r in rows if r["kind"] == "gaze"]
    asked = np.array([r["asked"] for r in gaze]).reshape(-1, 2)
    got = np.array([r["measured"] for r in gaze]).reshape(-1, 2)
    slope = [
        float((asked[:, i] * got[:, i]).sum() / max((asked[:, i] ** 2).sum(), 1e-9)) for i in (0, 1)
    ]
    values = {
        "gaze_error_deg": ("gaze", mean("error_deg", "gaze")),
        "gaze_slope_yaw": ("gaze", slope[0]),
        "gaze_slope_pitch": ("gaze", slope[1]),
        "distance_error_ratio": ("distance", mean("error_ratio", "distance")),
        "emotions_recognised": ("emotion", mean("recognised", "emotion")),
        "emotion_strength": ("emotion", mean("strength", "emotion")),
        **{f"identity_{k}": (k, mean("identity", k)) for k in ("gaze", "distance", "emotion")},
    }
    return {name: value for name, (kind, value) in values.items() if kind in kinds}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of ``summarise``, with what would be right.

    The slopes that are right are those that ``motion.gaze`` measures on rendered truth.
    """
    right = {
        "gaze_error_deg": "0", "gaze_slope_yaw": "0.84", "gaze_slope_pitch": "0.33",
        "distance_error_ratio": "0", "emotions_recognised": "1", "emotion_strength": "about 1",
    }  # fmt: skip
    lines = ["| control | value | right |", "|---|---|---|"]
    for key, value in summarise(rows).items():
        lines.append(f"| {key.replace('_', ' ')} | {value:.3f} | {right.get(key, '')} |")
    return "\n".join(lines)
