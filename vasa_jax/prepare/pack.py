"""Stage 9: clips as records in shards, which are never touched again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vasa_jax.data import records
from vasa_jax.data.records import Record, Records, shards
from vasa_jax.prepare.sync import moved


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
    blobs: Iterable[bytes],
    *,
    writer: str = "",
    shard_bytes: int = records.SHARD_BYTES,
) -> None:
    """Append shards of packed records; finished shards stay as they are.

    A shard holds at least one record, and no more than ``shard_bytes`` unless one alone has more.
    """
    stem = f"clips{'-' + writer if writer else ''}"
    free = (
        path for i in itertools.count()
        if not (path := folder / f"{stem}-{i:05d}{records.ENDING}").exists()
    )  # fmt: skip
    source = iter(blobs)
    first = next(source, None)
    while first is not None:
        shard = _Shard(first, source, shard_bytes)
        records.write_shard(next(free), shard)
        first = shard.next


class _Shard:
    """Records that fit into one shard; ``next`` is the first that does not, None at the end."""

    def __init__(self, first: bytes, source: Iterator[bytes], most: int):
        self._source, self._most = source, most
        self.next: bytes | None = first

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        while self.next is not None and (not size or size + len(self.next) <= self._most):
            size += len(self.next)
            yield self.next
            self.next = next(self._source, None)
