"""Records: what trainers read, one clip or one person's pictures each, by number.

A record is JSON beside named arrays (a safetensors blob). Records lie in shards, ArrayRecord files
that are read from the middle; beside each shard a manifest of the same name (Parquet) has a row per
record, so that people are drawn and held out without a record being read. The shard appears after
its manifest: one that is there is whole.

::

    FOLDER/about.json                what all of its records share: kind, motion space, size
    FOLDER/clips-00000.array_record
    FOLDER/clips-00000.parquet

Kinds (arrays; T frames at 25 per second, coordinates of the crop in [0, 1]):

``motion``  stage 2: ``samples`` (640 T,) int16, 16 kHz, ``motion`` (T, M) float16, ``viseme`` (T,)
            int8, ``trust`` (M,) float16, ``controls_*`` (T, ...) float16
``stills``  stage 1, some pictures of one person: ``image_00``, ... (N,) uint8, a PNG or WebP file
            each; ``motion`` (F, 54) absolute, without translation; ``placement`` (F, 3);
            ``identity`` (I,); ``shape`` (V, 3) float16; ``target`` (F,) bool: whether the picture
            may be asked for; ``matte_00``, ...  like the pictures, where known
``clip``    a talking person as ``prepare`` leaves it, for both stages: ``video`` (N,) uint8, an
            MP4 file of the crop, H.264, a key frame every ``KEY_FRAMES``; ``samples`` as above;
            ``landmarks`` (T, 478, 3) int16 in ``LANDMARK_STEP``; ``motion``, ``placement``,
            ``identity``, ``shape`` as of stills for every frame; ``gaze`` (T, 2) float16 rad,
            ``distance`` (T,) float16; ``matte`` (N,) uint8, an MP4 file, luma is the foreground
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import replacing

ENDING = ".array_record"  # of shards
KEY_FRAMES = 12  # frames from one key frame of a clip's video to the next
LANDMARK_STEP = 1 / 8192  # of landmarks as int16, in sides of the crop: +-4 sides
SHARD_BYTES = 1 << 30
ABOUT = "about.json"
HELD_OUT = "held_out.json"  # people of a folder that training does not see (``prepare/split.py``)
COLUMNS = ("id", "kind", "person", "source", "frames", "bytes", "speech", "meta")


@dataclasses.dataclass(frozen=True)
class Record:
    """One clip or one person's pictures."""

    kind: str
    meta: Mapping[str, Any]  # JSON; "id" and "person" at least ("" where not known)
    arrays: Mapping[str, np.ndarray]

    @property
    def frames(self) -> int:
        """Frames of a clip, or pictures."""
        return len(self.arrays["motion" if "motion" in self.arrays else "landmarks"])


def landmarks_of(record: Record) -> np.ndarray:
    """Landmarks (T, 478, 3) of a clip in sides of its crop, float32."""
    return record.arrays["landmarks"].astype(np.float32) * LANDMARK_STEP


def pack(record: Record) -> bytes:
    """A record as bytes; the same record gives the same bytes."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(x) for name, x in sorted(record.arrays.items())}
    note = json.dumps({"kind": record.kind, **record.meta}, sort_keys=True, ensure_ascii=False)
    return save(arrays, {"record": note})


def unpack(blob: bytes) -> Record:
    """The record of ``pack``; arrays are views of ``blob``. UserError when it is something else."""
    length = int.from_bytes(blob[:8], "little")
    try:
        header = json.loads(blob[8 : 8 + length])
        note = json.loads(header.pop("__metadata__")["record"])
        arrays = {}
        for name, entry in header.items():
            a, b = entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            part = np.frombuffer(blob, dtype, (b - a) // dtype.itemsize, 8 + length + a)
            arrays[name] = part.reshape(entry["shape"])
        return Record(note.pop("kind"), note, arrays)
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise UserError("that is no record of vasa-jax, or not a whole one") from error


_DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
        "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    }.items()
}  # fmt: skip


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Say what all records of a folder share. UserError when it already holds others."""
    path = folder / ABOUT
    wanted = json.loads(json.dumps({"format": 1, **about}))
    if path.exists():
        found = read_about(folder)
        for key, value in wanted.items():
            if found.get(key) != value:
                raise UserError(
                    f"{folder} holds records with {key} {found.get(key)}, not {value}; "
                    "choose another folder"
                )
        return
    with replacing(path) as part:
        part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """What ``write_about`` wrote; empty where nothing was. UserError when it can't be read."""
    path = folder / ABOUT
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path}: {error}") from error


def held_out(folder: Path) -> set[str] | None:
    """Names of the people that ``prepare split`` holds out of a folder; None where it did not."""
    path = folder / HELD_OUT
    try:
        if not path.exists():
            return None
        return set(json.loads(path.read_text(encoding="utf-8"))["people"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"can't read {path}: {error}") from error


def write_shard(path: Path, blobs: Iterable[bytes]) -> int:
    """Write packed records as one shard with its manifest, whole or not at all; returns how many.

    ``path`` ends in ``.array_record``. Raises UserError when it can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from array_record.python import array_record_module as array_records

    rows: list[dict[str, Any]] = []
    with replacing(path) as part:
        # Compressed are landmarks and the like; of videos zstd makes nothing smaller.
        writer = array_records.ArrayRecordWriter(str(part), "group_size:1,zstd:1")
        try:
            for blob in blobs:
                writer.write(blob)
                rows.append(manifest_row(unpack(blob), len(blob)))
        finally:
            writer.close()
        table = pa.Table.from_pylist(rows, schema=_schema(pa))
        with replacing(path.with_suffix(".parquet")) as beside:
            pq.write_table(table, beside)
    return len(rows)


def manifest_row(record: Record, size: int) -> dict[str, Any]:
    """What the manifest says of a record of ``size`` bytes."""
    meta = dict(record.meta)
    return {
        "id": meta.pop("id"), "kind": record.kind, "person": meta.pop("person"),
        "source": meta.pop("source", ""), "frames": record.frames, "bytes": size,
        "speech": bool(meta.pop("speech", False)),
        "meta": json.dumps(meta, sort_keys=True, ensure_ascii=False),
    }  # fmt: skip


def _schema(pa: Any) -> Any:
    text, name = pa.string(), pa.dictionary(pa.int32(), pa.string())
    kinds = (text, name, name, name, pa.int32(), pa.int64(), pa.bool_(), text)
    return pa.schema(list(zip(COLUMNS, kinds, strict=True)))


def shards(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order. UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    found = sorted(folder.glob(f"*{ENDING}"))
    return [p for p in found if not p.name.startswith(".") and p.with_suffix(".parquet").exists()]


class Records(Sequence[Record]):
    """The records of some shards, by number; or of some in memory, which works the same.

    Attributes, N each: ``ids``, ``people``, ``sources`` (str), ``kinds``, ``frames``, ``speech``.
    ``meta`` is read with the record. Copying one to another process costs what its index is large.
    """

    def __init__(self, files: Sequence[Path], memory: Sequence[bytes] = ()):
        """Raises UserError when a file can't be read."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS[:-1]}
        counts = []
        for path in files:
            table = read_manifest(path)
            counts.append(len(table["id"]))
            for name in rows:
                rows[name].append(table[name])
        self._memory = list(memory)
        if memory:
            made = [manifest_row(unpack(blob), len(blob)) for blob in memory]
            for name in rows:
                rows[name].append(np.array([row[name] for row in made]))
        dtypes = {"frames": np.int64, "bytes": np.int64, "speech": bool}

        def column(name: str) -> np.ndarray:
            kind = dtypes.get(name, np.str_)
            return np.concatenate(rows[name]).astype(kind) if rows[name] else np.zeros(0, kind)

        self.ids, self.kinds, self.people = column("id"), column("kind"), column("person")
        self.sources, self.frames = column("source"), column("frames")
        self.bytes, self.speech = column("bytes"), column("speech")
        self._filed = sum(counts)
        self._instructions = [
            f"{path.absolute()}[0:{n}]" for path, n in zip(files, counts, strict=True) if n
        ]
        self._store: Any = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Records that are in memory."""
        return cls((), [pack(record) for record in records])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]  # an int, or a slice of them
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[int(number)]
        if number >= self._filed:
            return unpack(self._memory[number - self._filed])
        try:
            return unpack(self._open()[number])
        except Exception as error:  # the reader's own are of no common class
            raise UserError(
                f"the record {self.ids[number]} can't be read: its shard is damaged; delete it and "
                "make it again"
            ) from error

    def _open(self) -> Any:
        with self._lock:
            if self._store is None:
                from grain.sources import ArrayRecordDataSource

                self._store = ArrayRecordDataSource(self._instructions)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def read_manifest(shard: Path) -> dict[str, np.ndarray]:
    """The columns (``COLUMNS``) of a shard's manifest. UserError when it can't be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard.with_suffix(".parquet")
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} is no whole manifest of records: {error}") from error
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS}
