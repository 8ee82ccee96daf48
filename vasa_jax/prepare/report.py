"""What is in a folder of clips, who, how it looks, and why the rest is not: text, JSON, a page."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.types import FPS
from vasa_jax.data.records import Records, read_about, read_manifest, shards
from vasa_jax.io import clip_video
from vasa_jax.prepare.journal import read as journal_rows
from vasa_jax.prepare.run import reason

PICTURES = 48  # of the contact sheet
SIDE = 128  # px of each
EXAMPLES = 3  # names per reason
# Histograms: name in the records' meta, title, edges.
HISTOGRAMS = (
    ("yaw", "yaw, degrees", np.arange(-90, 91, 10)),
    ("pitch", "pitch, degrees", np.arange(-60, 61, 10)),
    ("face_px", "height of the face in the source, px", np.arange(0, 1050, 50)),
    ("lag", "sound moved by, frames", np.arange(-5.5, 6.5, 1)),
    ("confidence", "confidence of sync", np.arange(0, 0.85, 0.05)),
    ("detail", "detail", np.arange(0, 0.52, 0.02)),
    ("spoken", "share of frames that are no pause", np.arange(0, 1.05, 0.1)),
    ("gaze_yaw", "main gaze, yaw, degrees", np.arange(-40, 41, 5)),
    ("gaze_pitch", "main gaze, pitch, degrees", np.arange(-40, 41, 5)),
)


class Report:
    """A folder of clips in numbers; ``pictures`` only read when a page is made."""

    def __init__(self, folder: Path):
        """Raises UserError where there is no such folder."""
        import json

        self.folder = folder
        files = shards(folder)
        self._records = Records(files)
        self.about = read_about(folder)
        metas: list[dict[str, Any]] = []
        for path in files:
            metas += [json.loads(text) for text in read_manifest(path)["meta"]]
        for meta in metas:
            gaze = meta.get("gaze")
            if gaze:
                meta["gaze_yaw"], meta["gaze_pitch"] = np.degrees(gaze)
        self.values = {
            name: np.array([m[name] for m in metas if m.get(name) is not None], np.float64)
            for name, _, _ in HISTOGRAMS
        }
        seconds: dict[str, float] = defaultdict(float)
        for who, frames in zip(self._records.people, self._records.frames, strict=True):
            seconds[str(who)] += int(frames) / FPS
        self.people = dict(sorted(seconds.items(), key=lambda item: -item[1]))
        self.refused, self.failed = _outcomes(folder)

    def json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        found = self._records
        return {
            "folder": str(self.folder), "clips": len(found),
            "hours": round(float(found.frames.sum()) / FPS / 3600, 5),
            "hours_of_speech": round(float(found.frames[found.speech].sum()) / FPS / 3600, 5),
            "bytes": int(found.bytes.sum()), "size": self.about.get("size"),
            "people": {name: round(s / 3600, 5) for name, s in self.people.items()},
            "sources": len(set(found.sources.tolist())),
            "refused": {k: {"count": len(v), "examples": v[:EXAMPLES]}
                        for k, v in self.refused.items()},
            "failed": {k: {"count": len(v), "examples": v[:EXAMPLES]}
                       for k, v in self.failed.items()},
            "histograms": {
                name: {"edges": edges.tolist(),
                       "counts": np.histogram(self.values[name], edges)[0].tolist()}
                for name, _, edges in HISTOGRAMS
            },
        }  # fmt: skip

    def text(self) -> str:
        """A page of text."""
        table = self.json()
        lines = [
            f"{self.folder}: {table['clips']} clips of {len(self.people)} people from "
            f"{table['sources']} videos, {_time(sum(self.people.values()))} "
            f"({_time(3600 * table['hours_of_speech'])} of speech), {table['bytes'] / 1e6:.1f} MB"
        ]
        for name, seconds in list(self.people.items())[:10]:
            lines.append(f"  {name or '(unknown)'}: {_time(seconds)}")
        if len(self.people) > 10:
            lines.append(f"  ... and {len(self.people) - 10} more")
        for name, title, _ in HISTOGRAMS:
            values = self.values[name]
            if len(values):
                low, middle, high = np.percentile(values, [5, 50, 95])
                lines.append(f"  {title}: {middle:.3g} ({low:.3g} to {high:.3g})")
        for kind, outcomes in (("refused", self.refused), ("failed", self.failed)):
            for text, names in outcomes.items():
                lines.append(f"  {kind}: {len(names)} x {text}, as {', '.join(names[:EXAMPLES])}")
        return "\n".join(lines)

    def html(self) -> str:
        """One page that needs no other file."""
        charts = "".join(
            _chart(title, np.histogram(self.values[name], edges)[0], edges)
            for name, title, edges in HISTOGRAMS
            if len(self.values[name])
        )
        rows = "".join(
            f"<tr><td>{kind}</td><td>{len(names)}</td><td>{html.escape(text)}</td>"
            f"<td>{html.escape(', '.join(names[:EXAMPLES]))}</td></tr>"
            for kind, outcomes in (("refused", self.refused), ("failed", self.failed))
            for text, names in outcomes.items()
        )
        return (
            "<!doctype html><meta charset=utf-8><title>clips</title><style>body{font:15px "
            "sans-serif;max-width:60em;margin:2em auto;padding:0 1em}svg{margin:0 1em 1em 0}"
            "td{padding:.2em .8em .2em 0;vertical-align:top}pre{white-space:pre-wrap}</style>"
            f"<h1>{html.escape(self.folder.name)}</h1><pre>{html.escape(self.text())}</pre>"
            f"<p><img alt='one picture of some clips' src='{self._sheet()}'></p>{charts}"
            f"<h2>Not used</h2><table>{rows}</table>\n"
        )

    def _sheet(self) -> str:
        """First pictures of clips, over as many people as there are, as a data address."""
        from PIL import Image

        order: list[int] = []
        for turn in range(PICTURES):
            for who in self.people:
                mine = np.flatnonzero(self._records.people == who)
                if turn < len(mine) and len(order) < PICTURES:
                    order.append(int(mine[turn]))
        if not order:
            return "data:,"
        side = min(len(order), 12)
        sheet = Image.new("RGB", (SIDE * side, SIDE * -(-len(order) // side)))
        for i, number in enumerate(order):
            picture = clip_video.frames_at(self._records[number].arrays["video"], [0])[0]
            small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (SIDE * (i % side), SIDE * (i // side)))
        target = io.BytesIO()
        sheet.save(target, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"


def _outcomes(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Names of what was refused and what failed by reason, the most common first."""
    tables: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted((folder / "journal").glob("*.jsonl")):
        for row in journal_rows(path):
            last[path.name.split(".")[0], row["key"]] = row  # a later line counts
    for row in last.values():
        for kind, table in zip(("refused", "error"), tables, strict=True):
            if kind in row:
                name = row["key"].split("|")[0].rsplit("/", 1)[-1]
                table[reason(row[kind])].append(name)
    ordered = [
        {k: table[k] for k, _ in Counter({k: len(v) for k, v in table.items()}).most_common()}
        for table in tables
    ]
    return ordered[0], ordered[1]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _chart(title: str, counts: np.ndarray, edges: np.ndarray) -> str:
    """A histogram as a picture."""
    width, height, most = 300, 90, max(int(counts.max()), 1)
    bar = width / len(counts)
    bars = "".join(
        f"<rect x='{i * bar:.1f}' y='{height - height * c / most:.1f}' width='{bar - 1:.1f}' "
        f"height='{height * c / most:.1f}' fill='#469'/>"
        for i, c in enumerate(counts)
    )
    return (
        f"<svg width='{width}' height='{height + 36}' font-size='12'>{bars}"
        f"<text y='{height + 14}'>{edges[0]:g}</text><text x='{width}' y='{height + 14}' "
        f"text-anchor='end'>{edges[-1]:g}</text><text y='{height + 30}'>{html.escape(title)}</text>"
        "</svg>"
    )
