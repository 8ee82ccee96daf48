"""All stages in order: videos in, shards of clips out.

::

    videos ─► index ─► scan ─► tracks ─► crop ─► annotate ─► sync ─► quality ─► identity ─► pack
              per video  per piece       per clip, on what crop kept                     shards

What is done stands in journals (``journal.py``) and in files that appear whole or not at all, so a
run may be killed at any moment; the next one does what is missing. Videos go through in groups, so
that what lies unpacked stays small; a group's clips depend on nothing but its videos.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.config import to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import flatten
from vasa_jax.core.types import FPS
from vasa_jax.data import records
from vasa_jax.data.records import Record
from vasa_jax.face.head.head import load_head
from vasa_jax.io.atomic import replacing
from vasa_jax.prepare import annotate, crop, identity, pack, sound, tracks
from vasa_jax.prepare.config import PrepareConfig
from vasa_jax.prepare.engine import Engine, Row
from vasa_jax.prepare.identity import Identities
from vasa_jax.prepare.index import index, state, videos
from vasa_jax.prepare.journal import Journal
from vasa_jax.prepare.quality import quality
from vasa_jax.prepare.sync import sync

HEAD = "head.npz"
PER_CLIP = ("crop", "annotate", "sync", "quality", "identity")
STAGES = ("index", "scan", "tracks", *PER_CLIP)

Say = Callable[[str, int, int], None]
"""Hears a stage, and how many of how many rows are done."""


@dataclasses.dataclass
class Summary:
    """What became of everything that this process was given."""

    videos: int = 0
    clips: int = 0  # in shards
    new: int = 0  # of them, made by this run
    seconds: float = 0.0
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    errors: Counter[str] = dataclasses.field(default_factory=Counter)


class Preparation:
    """One process's part of a folder of clips.

    Args:
        out: the folder.
        engine: who does the work.
        shard: (I, N): this process has part I of N, as sources fall.
        head: the reduced head that faces are fitted with; None: the bundled release's.
    """

    def __init__(
        self,
        cfg: PrepareConfig,
        out: Path,
        engine: Engine,
        *,
        identities: Identities | None = None,
        shard: tuple[int, int] = (0, 1),
        head: Path | None = None,
        say: Say = lambda stage, done, total: None,
    ):
        """Raises UserError where the folder was made with another configuration or head."""
        self.cfg, self.out, self.engine, self.say = cfg, out, engine, say
        self.identities = identities or Identities(cfg.people)
        self.shard = shard
        self.writer = "" if shard[1] == 1 else f"{shard[0]}-of-{shard[1]}"
        self.journals = {s: Journal(out / "journal", s, self.writer) for s in STAGES}
        _keep_settings(cfg, out)
        keep_head(head, out)
        records.write_about(out, {"kind": "clip", "size": cfg.size})

    def run(self, raw: Sequence[Path]) -> Summary:
        """Prepare what is missing. Raises UserError without a video, or when the disk is full."""
        found = [
            {"key": state(path), "path": str(path.absolute()), "name": name}
            for path, name in videos(raw, self.out)
        ]
        found = [row for row in found if _part(row["name"], self.shard[1]) == self.shard[0]]
        done = self._stage("index", found, index)
        sources = self._unique(found, done)
        keys: list[str] = []
        self._packed = pack.packed(self.out)
        before = len(self._packed)
        ready: list[str] = []
        for start in range(0, len(sources), self.cfg.group):
            group = sources[start : start + self.cfg.group]
            made = self._group(group)
            keys += made
            ready += [k for k in made if k not in self._packed]
            sizes = sum(crop.path_of(self.out, k).stat().st_size for k in ready)
            if sizes >= self.cfg.shard_bytes:
                self._pack(ready)
                ready = []
        self._pack(ready)
        if not any((self.out / "work").rglob("*.*")):
            shutil.rmtree(self.out / "work", ignore_errors=True)
        return self._summary(found, keys, len(self._packed) - before)

    def _stage(self, name: str, rows: list[Row], work: Callable[[Row], Row]) -> Journal:
        """Give the engine what is missing of a stage, and keep what it makes."""
        journal = self.journals[name]
        missing = set(journal.missing([row["key"] for row in rows]))
        todo = [row for row in rows if row["key"] in missing]
        for done, (row, outcome) in enumerate(self.engine.map(work, todo), 1):
            journal.add(row["key"], outcome)
            self.say(name, done, len(todo))
        return journal

    def _unique(self, found: list[Row], done: Journal) -> list[Row]:
        """One row per content, the first by name; copies are refused and say of what."""
        first: dict[str, str] = {}
        sources = []
        results = done.results()
        for row in found:
            probe = results.get(row["key"])
            if probe is None:
                continue
            original = first.setdefault(probe["source"], row["name"])
            if original != row["name"]:
                done.add(row["key"], {"refused": f"the same file as {original}"})
                continue
            pixels = max(probe["width"] * probe["height"] * probe["rate"], 1)
            sources.append({**probe, "path": row["path"], "name": row["name"],
                            "bits_per_pixel": round(probe["bits_per_s"] / pixels, 5)})  # fmt: skip
        return sources

    def _group(self, sources: list[Row]) -> list[str]:
        """Keys of the clips of some videos that passed every stage."""
        clips = self._clips(sources)
        heard = {c["source"]: c for c in clips if c["sound"] and c["key"] not in self._packed}
        kept = self.journals["crop"].rows
        wanted = [c for c in clips if c["key"] not in self._packed]
        missing = [c for c in wanted if c["key"] not in kept]
        lacking = {c["source"] for c in missing}
        rows = [{"key": s, "source": s, "path": heard[s]["path"]}
                for s in sorted(lacking & set(heard))
                if not sound.path_of(self.out, s).exists()]  # fmt: skip
        for row, outcome in self.engine.map(functools.partial(sound.extract, self.out), rows):
            if "error" in outcome:  # its pictures are still good
                for clip in (c for c in missing if c["source"] == row["source"]):
                    clip["sound"] = False
        works = {
            "crop": functools.partial(crop.crop, self.cfg, self.out),
            "annotate": functools.partial(_annotate, self.out),
            "sync": functools.partial(_on_crop, self.out, functools.partial(sync, self.cfg.sync)),
            "quality": functools.partial(
                _on_crop, self.out, functools.partial(quality, self.cfg.quality)
            ),
            "identity": functools.partial(_identity, self.out),
        }
        for name in PER_CLIP:
            rows_of = self._stage(name, wanted, works[name]).rows
            wanted = [c for c in wanted if "result" in rows_of[c["key"]]]
        for source in sorted(lacking):
            sound.path_of(self.out, source).unlink(missing_ok=True)
        self._forget(clips, wanted)
        return [c["key"] for c in wanted] + [c["key"] for c in clips if c["key"] in self._packed]

    def _clips(self, sources: list[Row]) -> list[Row]:
        """Clips of some videos, those whose faces are too small and the like left out."""
        length = self.cfg.piece_s * FPS
        pieces = [
            {"key": f"{s['source']}-{i:05d}", "path": s["path"], "start": i * length,
             "stop": (i + 1) * length}
            for s in sources
            for i in range(max(1, -(-round(s["seconds"] * FPS) // length)))
        ]  # fmt: skip
        self._stage("scan", pieces, functools.partial(tracks.scan, self.cfg))
        journal = self.journals["tracks"]
        made = []
        for source in sources:
            name = source["source"]
            if name not in journal.rows:
                self._cut(name)
            for key, row in journal.of(name).items():
                if "result" in row:
                    made.append({**source, **row["result"], "key": key})
        return made

    def _cut(self, source: str) -> None:
        """Journal the clips of one video."""
        journal, pieces = self.journals["tracks"], []
        for row in self.journals["scan"].of(source).values():
            if "result" not in row or not row["result"]["frames"]:
                break  # beyond this nothing can be read
            pieces.append(row["result"])
        clips = tracks.clips(self.cfg, source, pieces)
        for clip in clips:
            key = clip.pop("key")
            refused = clip.pop("refused", None)
            outcome = {"result": clip} if refused is None else {"refused": refused, **clip}
            journal.add(key, outcome)
        if clips:
            journal.add(source, {"result": {"clips": len(clips)}})
        else:
            journal.add(source, {"refused": "no face was found"})

    def _forget(self, clips: list[Row], passed: list[Row]) -> None:
        """Removes the work files of clips that were refused."""
        kept = {c["key"] for c in passed}
        for clip in clips:
            if clip["key"] not in kept:
                for path in (crop.path_of(self.out, clip["key"]), _notes(self.out, clip["key"])):
                    path.unlink(missing_ok=True)

    def _pack(self, keys: list[str]) -> None:
        """Put clips into shards, then remove what they were made of."""
        if not keys:
            return
        keys = sorted(keys)
        people = self._people(keys)
        sync_rows, quality_rows = (self.journals[name].rows for name in ("sync", "quality"))

        def blobs() -> Iterator[bytes]:
            for done, key in enumerate(keys, 1):
                whole = pack.assemble(
                    _read(crop.path_of(self.out, key)), _read(_notes(self.out, key)),
                    sync_rows[key]["result"], quality_rows[key]["result"], people[key],
                )  # fmt: skip
                yield records.pack(whole)
                self.say("pack", done, len(keys))

        pack.pack(self.out, blobs(), writer=self.writer, shard_bytes=self.cfg.shard_bytes)
        self._packed |= set(keys)
        for key in keys:
            crop.path_of(self.out, key).unlink(missing_ok=True)
            _notes(self.out, key).unlink(missing_ok=True)

    def _people(self, keys: list[str]) -> dict[str, str]:
        """Who is in each clip."""
        journal = self.journals["identity"]
        who: dict[str, str] = {}
        for source in dict.fromkeys(key.split("-")[0] for key in keys):
            rows = {k: r["result"] for k, r in journal.of(source).items() if "result" in r}
            given = self.identities.given(next(iter(rows.values()))["name"])
            groups = {} if given else identity.grouped({k: r["code"] for k, r in rows.items()})
            who |= {key: given or f"{source}/{groups[key]}" for key in rows}
        return who

    def _summary(self, found: list[Row], keys: list[str], new: int) -> Summary:
        mine = set(keys)
        table = records.Records(records.shards(self.out))
        frames = sum(int(n) for i, n in zip(table.ids, table.frames, strict=True) if i in mine)
        summary = Summary(len(found), len(mine & set(table.ids.tolist())), new, frames / FPS)
        for journal in self.journals.values():
            for row in journal.rows.values():
                for kind, table_of in (("refused", summary.refused), ("error", summary.errors)):
                    if kind in row:
                        table_of[reason(row[kind])] += 1
        return summary


def reason(text: str) -> str:
    """A reason without the numbers of its case, so that like ones can be counted."""
    for mark in (":", "("):
        text = text.split(mark)[0]
    words = ["N" if w.strip("%,.").replace(".", "").isdigit() else w for w in text.split()]
    words = words[:-1] if "same file as" in text else words
    return " ".join(w if not w.endswith("%") else "N%" for w in words)


def _part(name: str, count: int) -> int:
    """Which of ``count`` parts a video belongs to."""
    import hashlib

    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count


def _notes(folder: Path, key: str) -> Path:
    return folder / "work" / "notes" / f"{key}.safetensors"


def _read(path: Path) -> Record:
    return records.unpack(path.read_bytes())


@functools.lru_cache(1)
def _head(path: str) -> Any:
    return load_head(path)


def _annotate(folder: Path, row: Row) -> Row:
    import jax

    made = _read(crop.path_of(folder, row["key"]))
    try:
        with jax.numpy_rank_promotion("allow"):
            arrays, notes = annotate.annotate(_head(str(folder / HEAD)), made)
    except UserError as error:
        return {"refused": str(error)}
    with replacing(_notes(folder, row["key"])) as part:
        part.write_bytes(records.pack(Record("notes", notes, arrays)))
    return {"result": notes}


def _on_crop(folder: Path, work: Callable[[Record], Row], row: Row) -> Row:
    return work(_read(crop.path_of(folder, row["key"])))


def _identity(folder: Path, row: Row) -> Row:
    code = identity.embedding(_read(crop.path_of(folder, row["key"])))
    return {"result": {"name": row["name"], "code": [round(float(x), 5) for x in code]}}


def _keep_settings(cfg: PrepareConfig, out: Path) -> None:
    """config.json of a folder. UserError when it was made with another."""
    path, wanted = out / "config.json", json.loads(json.dumps(to_json(cfg)))
    if path.exists():
        found = flatten(json.loads(path.read_text(encoding="utf-8")))
        ours = flatten(wanted)
        for name in sorted(ours):
            if name not in ("group", "piece_s") and found.get(name) != ours[name]:
                raise UserError(
                    f"{out} was made with {name.replace('/', '.')} {found.get(name)}, not "
                    f"{ours[name]}; choose another folder"
                )
        return
    with replacing(path) as part:
        part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def keep_head(head: Path | None, out: Path) -> None:
    """head.npz of a folder, where stage 1 looks for it. UserError when it holds another."""
    path = out / HEAD
    if head is None:
        if path.exists():
            return
        from vasa_jax.checkpoint.release import load_release

        arrays = {k: np.asarray(v) for k, v in flatten(load_release("lite").params["head"]).items()}
        with replacing(path) as part:
            np.savez(part, **arrays)  # type: ignore[arg-type]  # names, not options
        return
    load_head(head)
    if path.exists() and path.read_bytes() != head.read_bytes():
        raise UserError(f"{out} was made with another head; choose another folder")
    with replacing(path) as part:
        part.write_bytes(head.read_bytes())
