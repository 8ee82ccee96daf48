"""Stage 9: clips as records in shards, which are never touched again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasa_jax.data import records
from vasa_jax.data.records import Record, Records, shards
from vasa_jax.prepare.sync import moved

ENDING = ".array_record"


def assemble(
    crop: Record, notes: Record, sync: Mapping[str, Any], quality: Mapping[str, Any], person: str
) -> Record:
    """The clip as trainers read it: sound that fits the mouth, all that is known, a name."""
    meta = {k: v for k, v in crop.meta.items() if k != "sound"}
    meta |= {**notes.meta} | {k: v for k, v in sync.items() if k != "speech"} | dict(quality)
    meta |= {"id": crop.meta["id"], "person": person, "speech": bool(sync["speech"])}
    samples = moved(crop.arrays["samples"], int(sync["lag"]))
    return Record("clip", meta, {**crop.arrays, **notes.arrays, "samples": samples})


def packed(folder: Path) -> set[str]:
    """Ids of all clips in finished shards."""
    return set(Records(shards(folder)).ids.tolist())


def pack(
    folder: Path,
    keys: Sequence[str],
    blob: Callable[[str], bytes],
    *,
    writer: str = "",
    shard_bytes: int = records.SHARD_BYTES,
) -> list[list[str]]:
    """Append shards of the clips ``keys``, in the order of their names; returns keys per shard.

    ``blob(key)`` is a packed record. A shard holds at least one and at most about ``shard_bytes``.
    Finished shards stay as they are.
    """
    made: list[list[str]] = []
    waiting = sorted(keys)
    number = 0
    stem = f"clips{'-' + writer if writer else ''}"
    while waiting:
        path = folder / f"{stem}-{number:05d}{ENDING}"
        number += 1
        if path.exists():
            continue
        inside: list[str] = []

        def blobs(inside: list[str] = inside, waiting: list[str] = waiting):
            size = 0
            for key in waiting:
                one = blob(key)
                if inside and size + len(one) > shard_bytes:
                    return
                size += len(one)
                inside.append(key)
                yield one

        records.write_shard(path, blobs())
        waiting = waiting[len(inside) :]
        made.append(inside)
    return made
