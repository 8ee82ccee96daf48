"""Stage 1: what there is. Every video once, by its content; nothing of it is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS
from vasa_jax.data.folders import VIDEO_ENDINGS
from vasa_jax.io.media import open_media

KEY = 16  # hex digits of a source's name
UNEVEN = 0.02  # share of steps between pictures that differ, from which on a rate is variable


def videos(raw: Sequence[Path], out: Path) -> list[tuple[Path, str]]:
    """Files of videos in folders, at any depth, with their names below those; in order.

    What lies in ``out``, hidden files and folders are left alone. UserError when there is no such
    file or folder, or none holds a video.
    """
    found: dict[Path, str] = {}
    beside = out.resolve()
    for place in raw:
        if place.is_file():
            found.setdefault(place, place.name)
        elif place.is_dir():
            for path in sorted(place.rglob("*")):
                below = path.relative_to(place)
                hidden = any(part.startswith(".") for part in below.parts)
                if path.suffix.lower() not in VIDEO_ENDINGS or hidden or not path.is_file():
                    continue
                if beside not in path.resolve().parents:
                    found.setdefault(path, below.as_posix())
        else:
            raise UserError(f"no such file or folder: {place}")
    if not found:
        names = ", ".join(str(place) for place in raw)
        raise UserError(f"no videos in {names} ({', '.join(VIDEO_ENDINGS)})")
    return sorted(found.items(), key=lambda item: (item[1], str(item[0])))


def state(path: Path) -> str:
    """What changes when a file does, without reading it; the key of its row."""
    about = path.stat()
    return f"{path.absolute()}|{about.st_size}|{about.st_mtime_ns}"


def index(row: dict[str, Any]) -> dict[str, Any]:
    """Hash and properties of the video ``row["path"]``; counted from packets, not from headers."""
    path = Path(row["path"])
    try:
        found = probe(path)
    except UserError as error:
        return {"refused": " ".join(str(error).split())}
    except OSError as error:
        return {"error": f"{path}: {error.strerror or error}"}
    digest = _sha256(path)
    return {"result": {**found, "name": row["name"], "path": str(path), "sha256": digest,
                       "source": digest[:KEY]}}  # fmt: skip


def probe(path: Path) -> dict[str, Any]:
    """Codec, size, rate, length of a video's picture. UserError when it has none."""
    with open_media(path, "video") as container:
        if not container.streams.video:
            raise UserError(f"{path} has no picture track")
        stream = container.streams.video[0]
        stamps, size, count = [], 0, 0
        for packet in container.demux(stream):
            size += packet.size
            count += packet.size > 0
            if packet.pts is not None and packet.size:
                stamps.append(packet.pts)
        if not stamps and not size:
            raise UserError(f"{path} has no pictures that can be read")
        base = stream.time_base or Fraction(1, FPS)
        rate = Fraction(stream.average_rate or FPS)
        times = np.sort(np.array(stamps, np.float64)) * float(base)
        steps = np.diff(times)
        uneven = np.abs(steps - np.median(steps)) > 0.002 if len(steps) else np.zeros(0, bool)
        seconds = float(times[-1] - times[0] + 1 / rate) if len(times) else float(count / rate)
        return {
            "codec": stream.codec_context.name, "pixels": stream.codec_context.pix_fmt or "",
            "width": stream.codec_context.width, "height": stream.codec_context.height,
            "rate": round(float(rate), 3), "variable": bool(uneven.mean() > UNEVEN)
            if len(steps) else False,
            "seconds": round(seconds, 3), "frames": count,
            "bits_per_s": round(8 * size / max(seconds, 1e-3)),
            "sound": bool(container.streams.audio),
        }  # fmt: skip


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
