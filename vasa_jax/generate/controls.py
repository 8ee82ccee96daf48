"""What the user asks of the motion: numbers and tracks over time become ``Controls``.

A control is a constant or a track of (time, value...) points, linear between points and constant
before the first and after the last. Angles are degrees here, as people give them, and radians in
``Controls``; positive yaw looks towards the right edge of the picture, positive pitch up.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS, FPS, Array, Controls

MAX_GAZE_DEG = (45.0, 30.0)  # yaw, pitch: as far as eyes and a slightly turned head go
DISTANCE_RANGE = (0.6, 1.6)  # ratio to the portrait's own
MAX_POINTS = 100_000
GUIDED = ("audio", "gaze", "distance", "emotion", "past")  # conditions that can be guided

EMOTION_ALIASES = {
    "calm": "neutral", "happiness": "happy", "joy": "happy", "joyful": "happy", "smile": "happy",
    "sadness": "sad", "anger": "angry", "surprise": "surprised", "fear": "fearful",
    "afraid": "fearful", "scared": "fearful", "disgust": "disgusted", "contemptuous": "contempt",
}  # fmt: skip

FORMAT = """\
{"gaze": [[t, yaw, pitch], ...], "distance": [[t, ratio], ...],
 "emotion": {"happy": [[t, strength], ...], "sad": 0.3}}
t in seconds, rising; angles in degrees; linear between points, constant beyond them. A constant
needs no times: "gaze": [yaw, pitch], "distance": 0.9. Leave out what you do not ask for."""

Track = np.ndarray  # (P, 1 + values): time in s, then the values


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlTracks:
    """Tracks of what is asked for; None, or a missing emotion, leaves the choice to the model."""

    gaze_deg: Track | None = None  # (P, 3)
    distance: Track | None = None  # (P, 2)
    emotion: Mapping[str, Track] = dataclasses.field(default_factory=dict)  # name -> (P, 2)

    def over(self, other: ControlTracks) -> ControlTracks:
        """These controls, and those of ``other`` where nothing is said here."""
        return ControlTracks(
            gaze_deg=other.gaze_deg if self.gaze_deg is None else self.gaze_deg,
            distance=other.distance if self.distance is None else self.distance,
            emotion={**other.emotion, **self.emotion},
        )

    def rows(self, num_frames: int, *, start: int = 0) -> Controls:
        """Rows for ``num_frames`` video frames from frame ``start`` on, leading shape (T,)."""
        out = Controls.none(num_frames)
        on = np.ones(num_frames, np.float32)
        if self.gaze_deg is not None:
            gaze = np.radians(_sample(self.gaze_deg, num_frames, start)).astype(np.float32)
            out = out._replace(gaze=gaze, gaze_on=on)
        if self.distance is not None:
            distance = _sample(self.distance, num_frames, start)[:, 0]
            out = out._replace(distance=distance, distance_on=on)
        if self.emotion:
            strengths = np.zeros((num_frames, len(EMOTIONS)), np.float32)
            for name, track in self.emotion.items():
                strengths[:, EMOTIONS.index(name)] = _sample(track, num_frames, start)[:, 0]
            out = out._replace(emotion=strengths, emotion_on=on)
        return out


def controls(
    *,
    gaze: Sequence[Any] | None = None,
    distance: Any = None,
    emotion: Mapping[str, Any] | None = None,
) -> ControlTracks:
    """Checked controls from plain numbers and lists, as ``FORMAT`` describes them.

    Raises UserError, naming the entry, on unknown emotions, numbers out of range and bad tracks.
    """
    return ControlTracks(
        gaze_deg=None if gaze is None else _gaze(gaze),
        distance=None if distance is None else _distance(distance),
        emotion={
            emotion_name(name): _track(value, 1, f"emotion {name!r}", ((0.0, 1.0),))
            for name, value in (emotion or {}).items()
        },
    )


def read_controls(path: str | os.PathLike[str]) -> ControlTracks:
    """Controls from a JSON file in ``FORMAT``. Raises UserError on anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise UserError(f"can't read controls {os.fspath(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"controls {os.fspath(path)} is not JSON: {error}") from error
    try:
        if not isinstance(data, dict):
            raise UserError('expected an object like {"gaze": [20, 0]}')
        for name in data:
            if name not in ("gaze", "distance", "emotion"):
                raise UserError(f"no control {name!r}{near(name, ('gaze', 'distance', 'emotion'))}")
        if not isinstance(data.get("emotion", {}), dict):
            raise UserError('emotion: expected an object like {"happy": 0.8}')
        return controls(**data)
    except UserError as error:
        raise UserError(f"controls {os.fspath(path)}: {error}") from error


def emotion_name(text: str) -> str:
    """The name in ``EMOTIONS`` that ``text`` means. Raises UserError with the nearest one."""
    name = str(text).strip().lower()
    name = EMOTION_ALIASES.get(name, name)
    if name not in EMOTIONS:
        raise UserError(f"no emotion {text!r}{near(name, (*EMOTIONS, *EMOTION_ALIASES))}")
    return name


def parse_gaze(text: str) -> list[float]:
    """ "YAW,PITCH" in degrees; a lone number is a yaw."""
    parts = text.replace(" ", "").split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"--gaze wants YAW,PITCH in degrees, as in 20,-5; got {text!r}")
    return [*numbers, 0.0][:2]


def parse_emotions(items: Iterable[str]) -> dict[str, float]:
    """``["happy=0.8", "sad"]`` -> strengths; a name alone means 1. Commas separate, too."""
    out: dict[str, float] = {}
    for item in (part for text in items for part in text.split(",") if part.strip()):
        name, equals, strength = item.partition("=")
        try:
            value = float(strength) if equals else 1.0
        except ValueError:
            raise UserError(
                f"--emotion wants NAME=STRENGTH, as in happy=0.8; got {item!r}"
            ) from None
        out[emotion_name(name)] = value
    return out


def parse_guidance(text: str, known: Sequence[str] = GUIDED) -> dict[str, float]:
    """``"audio=0.5,gaze=1.0"`` -> scales (equation 2 of VASA-1), each in 0..10."""
    out: dict[str, float] = {}
    for item in (part for part in text.split(",") if part.strip()):
        name, _, scale = (s.strip() for s in item.partition("="))
        if name not in known:
            raise UserError(f"--guidance: no condition {name!r}{near(name, known)}")
        try:
            out[name] = float(scale)
        except ValueError:
            raise UserError(f"--guidance wants NAME=SCALE, as in audio=0.5; got {item!r}") from None
        if not 0.0 <= out[name] <= 10.0:
            raise UserError(f"--guidance {name}: {scale} is outside 0 to 10")
    return out


def _gaze(value: Any) -> Track:
    limits = tuple((-limit, limit) for limit in MAX_GAZE_DEG)
    return _track(value, 2, "gaze (degrees yaw, pitch)", limits)


def _distance(value: Any) -> Track:
    return _track(value, 1, "distance", (DISTANCE_RANGE,))


def _track(value: Any, width: int, what: str, limits: tuple[tuple[float, float], ...]) -> Track:
    """(P, 1 + width) from a constant or a list of [t, value...] points."""
    shape = "a number" if width == 1 else f"[{', '.join(['number'] * width)}]"
    want = f"{what}: expected {shape} or a list of [seconds{', number' * width}] points"
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(want) from None
    if array.ndim == 0 and width == 1:
        array = array[None]
    if array.shape == (width,):
        array = np.concatenate([[0.0], array])[None]
    if array.ndim != 2 or array.shape[1] != width + 1 or not len(array):
        raise UserError(want)
    if len(array) > MAX_POINTS:
        raise UserError(f"{what}: {len(array)} points; give at most {MAX_POINTS}")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: numbers must be finite")
    if (array[:, 0] < 0).any() or (np.diff(array[:, 0]) < 0).any():
        raise UserError(f"{what}: times must start at 0 or later and rise")
    for column, (low, high) in enumerate(limits, start=1):
        for number in array[:, column]:
            if not low <= number <= high:
                raise UserError(f"{what}: {number:g} is outside {low:g} to {high:g}")
    return array


def _sample(track: Track, num_frames: int, start: int) -> np.ndarray:
    """Values (T, width) float32 at the times of frames ``start`` and later."""
    t = np.arange(start, start + num_frames) / FPS
    columns = [np.interp(t, track[:, 0], track[:, c]) for c in range(1, track.shape[1])]
    return np.stack(columns, -1).astype(np.float32)


def near(name: str, known: Sequence[str]) -> str:
    """The end of an error line: the nearest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known[:8])}"


def distance_to_log_scale(ratio: Array) -> np.ndarray:
    """Log of apparent size for a distance ratio (``core/types.py``)."""
    return -np.log(np.asarray(ratio, np.float32))
