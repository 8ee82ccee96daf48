"""Stage 8: who is who. Given, or told from the pictures of one source.

Negatives, pairs and held-out people are people and not files (``data/``), so each clip needs a
name. A source added later never changes anybody else's: people are told apart within a source.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.data.folders import person_of
from vasa_jax.data.records import Record
from vasa_jax.face.find.recognition import aligned_crop, five_points, load_mobileface
from vasa_jax.prepare.looks import looks

LOOKS = 6  # frames of a clip that are looked at, one batch
SAME = 0.5  # mean cosine from which on two groups of clips are one person


def embedding(crop: Record) -> np.ndarray:
    """Unit vector (256,) of the person of a crop, the mean of some frames."""
    pictures, landmarks = looks(crop, LOOKS)
    points = five_points(landmarks) * pictures.shape[1]
    codes = np.asarray(_embed(pictures, points.astype(np.float32)))
    mean = codes.mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


@functools.partial(jax.jit)
def _embed(pictures_BYXC: Any, points_B52: Any) -> Any:
    with jax.numpy_rank_promotion("allow"):
        faces = aligned_crop(pictures_BYXC.astype("float32") / 127.5 - 1, points_B52)
        return load_mobileface()(faces)


def grouped(codes: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Number of the person of each clip of one source, in the order of the clips' names.

    Average linkage of cosines (Sokal, Michener 1958), cut at ``SAME``: the same whatever the order
    in which clips came.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    keys = sorted(codes)
    if len(keys) < 2:
        return dict.fromkeys(keys, 0)
    table = np.array([codes[k] for k in keys], np.float64)
    labels = fcluster(linkage(table, "average", metric="cosine"), 1.0 - SAME, "distance")
    order: dict[int, int] = {}
    return {k: order.setdefault(int(n), len(order)) for k, n in zip(keys, labels, strict=True)}


class Identities:
    """Names that are given: a table of names and patterns of paths, folders, or one for all.

    Args:
        mode: "folders" (the first folder of a path is a person, as in VoxCeleb), or "sources".
        table: CSV with the columns path, a pattern as in ``anna/*.mp4``, and person.
        everybody: a name for all of them.
    """

    def __init__(self, mode: str = "sources", table: Path | None = None, everybody: str = ""):
        """Raises UserError when the table can't be read, or the mode is none."""
        if mode not in ("sources", "folders"):
            raise UserError(f"people must be 'sources' or 'folders', not {mode!r}")
        self._mode, self._everybody = mode, everybody
        self._patterns = [] if table is None else _table(table)

    def given(self, name: str) -> str:
        """Who is in the source of this name; empty where nobody said."""
        if self._everybody:
            return self._everybody
        for pattern, person in self._patterns:
            if fnmatch.fnmatchcase(name, pattern):
                return person
        return person_of(Path("/", name), Path("/")) if self._mode == "folders" else ""


def _table(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"can't read {path}: {error}") from error
    if rows and [cell.strip().lower() for cell in rows[0][:2]] == ["path", "person"]:
        rows = rows[1:]
    wrong = [n for n, row in enumerate(rows, 1) if row and (len(row) < 2 or not row[1].strip())]
    if wrong or not rows:
        where = f"line {wrong[0]}" if wrong else "it"
        raise UserError(f"{path}: {where} has no path and person; write lines as anna/*.mp4,Anna")
    return [(row[0].strip(), row[1].strip()) for row in rows if row]
