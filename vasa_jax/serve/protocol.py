"""The live protocol, version 2: words, limits and checks shared by server and clients.

PROTOCOL.md beside this file is the description for people. Nothing here needs JAX or a web server.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError

VERSION = 2
SESSION_PATH, PORTRAIT_PATH = "/v2/session", "/v2/portraits"
CONSENT_HEADER = "Consent"  # of an upload: who allowed this portrait, percent-encoded UTF-8
EXAMPLE = "example"  # the portrait that is always there
SAMPLE_FORMATS: dict[str, np.dtype[Any]] = {"s16": np.dtype("<i2"), "f32": np.dtype("<f4")}
OUTPUTS = ("mp4", "jpeg", "webrtc")
SOURCES = ("microphone", "file")

MAX_MESSAGE_BYTES = 256 * 1024
MAX_PORTRAIT_BYTES = 12 * 1024 * 1024
MAX_PORTRAIT_PIXELS = 50_000_000  # what phones take at most, 8064x6048 or 8160x6120
RATES_HZ = (8_000, 48_000)
MAX_TEXT_BYTES = 32 * 1024  # a browser's offer has about ten; all others are small

# Codes of {"type": "error"}; the session ends after all but "bad_request".
ERRORS = {
    "bad_request": "the message is not as PROTOCOL.md says",
    "unauthorised": "the token is missing or wrong",
    "busy": "all places are taken",
    "no_portrait": "that portrait is not known (any more)",
    "no_consent": "nobody said who allowed this portrait",
    "too_fast": "more sound than the session takes",
    "too_slow": "the client does not read what it gets",
    "too_long": "the session's time is up",
    "idle": "no sound for too long",
    "failed": "the server failed",
}


class Refused(Exception):
    """A message that can't be served: a code of ``ERRORS`` and one line."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The first message of a session, checked."""

    portrait: str = EXAMPLE
    rate: int = 16_000
    format: str = "s16"
    source: str = "microphone"
    output: str = "mp4"
    frame: str = "full"
    seed: int = 0
    controls: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    token: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steer:
    """Controls of a message: what ``controls()`` takes, and a pose bias or None for "unchanged"."""

    controls: Mapping[str, Any] | None = None
    pose: tuple[float, float, float] | None = None


def read_text(text: str) -> dict[str, Any]:
    """A text message as an object with a ``type``. Raises Refused."""
    if len(text) > MAX_TEXT_BYTES:
        raise Refused("bad_request", f"text messages have at most {MAX_TEXT_BYTES} bytes")
    try:
        message = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_request", f"not JSON: {str(error)[:80]}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Refused("bad_request", 'expected an object like {"type": "interrupt"}')
    return message


def read_start(message: Mapping[str, Any]) -> Start:
    """Checks a ``start`` message. Raises Refused, naming the entry."""
    if message.get("type") != "start":
        raise Refused("bad_request", "the first message is start")
    if message.get("version") != VERSION:
        raise Refused("bad_request", f"this server speaks version {VERSION}")
    known = {f.name for f in dataclasses.fields(Start)} | {"type", "version"}
    unknown = sorted(set(message) - known)
    if unknown:
        raise Refused("bad_request", f"start: no entry {unknown[0][:40]!r}")
    values = {k: v for k, v in message.items() if k not in ("type", "version")}
    for name in ("portrait", "token"):
        if not isinstance(values.get(name, ""), str) or len(values.get(name, "")) > 200:
            raise Refused("bad_request", f"start: {name} is a short text")
    for name, allowed in (("format", tuple(SAMPLE_FORMATS)), ("source", SOURCES),
                          ("output", OUTPUTS), ("frame", ("full", "crop"))):  # fmt: skip
        if values.get(name, allowed[0]) not in allowed:
            raise Refused("bad_request", f"start: {name} is one of {', '.join(allowed)}")
    for name, (low, high) in (("rate", RATES_HZ), ("seed", (0, 2**32 - 1))):
        value = values.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refused("bad_request", f"start: {name} is a whole number, {low} to {high}")
    if not isinstance(values.get("controls", {}), dict):
        raise Refused("bad_request", "start: controls is an object")
    return Start(**values)


def read_controls(table: Mapping[str, Any]) -> Steer:
    """Checks controls: ``gaze``, ``distance``, ``emotion`` (all three together) and ``pose``.

    An entry that is null, or absent while another control is given, asks for
    nothing. Constants only.
    """
    unknown = sorted(set(table) - {"type", "gaze", "distance", "emotion", "pose"})
    if unknown:
        raise Refused("bad_request", f"no control {unknown[0][:40]!r}")
    asked: dict[str, Any] | None = None
    if set(table) & {"gaze", "distance", "emotion"}:
        asked = {}
        if table.get("gaze") is not None:
            asked["gaze"] = _numbers(table["gaze"], 2, "gaze")
        if table.get("distance") is not None:
            asked["distance"] = _numbers([table["distance"]], 1, "distance")[0]
        if table.get("emotion") is not None:
            emotion = table["emotion"]
            if not isinstance(emotion, dict) or len(emotion) > 8:
                raise Refused("bad_request", 'emotion: expected an object like {"happy": 0.7}')
            asked["emotion"] = {
                str(k)[:40]: _numbers([v], 1, "emotion")[0] for k, v in emotion.items()
            }
    pose = table.get("pose")
    if pose is None:
        return Steer(controls=asked)
    yaw, pitch, roll = _numbers(pose, 3, "pose")
    return Steer(controls=asked, pose=(yaw, pitch, roll))


def read_samples(data: bytes, format: str) -> np.ndarray:
    """Mono samples of a binary message, float32 in [-1, 1]. Raises Refused."""
    kind = SAMPLE_FORMATS[format]
    if not data or len(data) % kind.itemsize:
        raise Refused("bad_request", f"sound comes as whole {format} samples")
    samples = np.frombuffer(data, kind)
    if format == "s16":
        return samples.astype(np.float32) / 32768.0
    return samples.astype(np.float32)


def pack(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """A binary message: length of the header (32 bit, big endian), header as JSON, payload."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack(">I", len(text)) + text + payload


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a binary message. Raises UserError when it is none."""
    try:
        (size,) = struct.unpack_from(">I", message)
        return json.loads(message[4 : 4 + size]), message[4 + size :]
    except (struct.error, ValueError) as error:
        raise UserError(f"not a message of protocol {VERSION}: {error}") from error


def is_number(value: Any) -> bool:
    """Whether a value of a message is a finite number, and no whole one beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _numbers(value: Any, count: int, what: str) -> list[float]:
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(is_number(v) for v in value):
        raise Refused("bad_request", f"{what}: expected {count} number{'s' * (count > 1)}")
    return [float(v) for v in value]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
