"""Prepared clips as stage 1 reads them: two pictures of a clip are decoded, never all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.data import records
from vasa_jax.data.records import Records
from vasa_jax.io import clip_video


class ClipName(NamedTuple):
    """One clip of a folder, by number; sorts and hashes like a path."""

    folder: Path
    number: int
    name: str  # its id


class Pictures:
    """The pictures of a clip by number, (side, side, 3) uint8 each."""

    def __init__(self, video: np.ndarray, count: int, side: int):
        self._video = video
        self.shape = (count, side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        return clip_video.frames_at(self._video, [int(number)])[0]


class ClipFolder:
    """The clips of a folder that ``vasa-jax prepare`` made; an index in memory, no more."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._records = Records(records.shards(folder))
        self.held_out = records.held_out(folder)

    def people(self) -> Mapping[str, list[Path | ClipName]]:
        """Clips of each person, in the order of their names; unknown people are one each."""
        found: dict[str, list[Path | ClipName]] = {}
        table = self._records
        for i in np.argsort(table.ids, kind="stable").tolist():
            if table.kinds[i] != "clip":
                continue
            name = str(table.people[i]) or f"{self.folder.name}/{table.ids[i]}"
            found.setdefault(name, []).append(ClipName(self.folder, i, str(table.ids[i])))
        return found

    def read(self, clip: ClipName) -> dict[str, Any]:
        """The arrays of a face file (``face_files.py``), with pictures that are read on demand."""
        record = self._records[clip.number]
        arrays, count = record.arrays, record.frames
        missing = {"video", "motion", "placement", "identity", "shape"} - set(arrays)
        if missing:
            raise UserError(f"the clip {clip.name} of {self.folder} has no {', '.join(missing)}")
        return {
            "images": Pictures(arrays["video"], count, int(record.meta["size"])),
            "motion": arrays["motion"].astype(np.float32), "placement": arrays["placement"],
            "identity": arrays["identity"], "shape": arrays["shape"],
            "target": np.ones(count, bool),
        }  # fmt: skip
