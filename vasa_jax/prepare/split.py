"""Who is held out of training: people, not clips, chosen so that later clips change nobody."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vasa_jax.core.errors import UserError
from vasa_jax.data.records import HELD_OUT, Records, shards
from vasa_jax.io.atomic import replacing


def split(folder: Path, people: int, seed: int) -> dict[str, Any]:
    """Writes ``held_out.json``: the names of ``people`` people and the ids of their clips.

    People come in the order of a hash of seed and name, so that somebody who is added later moves
    nobody but, perhaps, the last. No data is moved. Raises UserError where there are not more
    people than are to be held out.
    """
    found = Records(shards(folder))
    names = sorted(set(found.people.tolist()))
    if people < 1 or people >= len(names):
        raise UserError(
            f"{folder} has {len(names)} {'person' if len(names) == 1 else 'people'}; --held-out "
            f"{people} would leave {'nobody to learn from' if people else 'nobody out'}"
        )

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    chosen = sorted(sorted(names, key=order)[:people])
    ids = [str(i) for i, who in zip(found.ids, found.people, strict=True) if who in set(chosen)]
    table = {"seed": seed, "people": chosen, "ids": sorted(ids)}
    with replacing(folder / HELD_OUT) as part:
        part.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return table
