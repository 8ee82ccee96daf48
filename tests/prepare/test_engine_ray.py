"""Rows on a real Ray cluster of this machine, one of whose workers is killed while it works."""

import functools
import os
import signal
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from vasa_jax.prepare.engine import DIED  # noqa: E402
from vasa_jax.prepare.engine_ray import RayEngine  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    made = RayEngine(workers=2)
    yield made
    made.close()


def work(folder: Path, row: dict) -> dict:
    """Squares a number. The first worker that has row 3 is killed in the middle of it."""
    note = folder / f"{row['number']}.pids"
    with note.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if row["number"] == 3 and len(note.read_text().split()) == 1 or row["number"] == row["poison"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": row["number"] ** 2}


def done(engine: RayEngine, folder: Path, rows: list[dict]) -> dict[int, dict]:
    work_there = functools.partial(work, folder)
    return {row["number"]: found for row, found in engine.map(work_there, rows)}


def test_killed_worker_loses_nothing(engine: RayEngine, tmp_path: Path) -> None:
    rows = [{"number": i, "poison": -1} for i in range(8)]
    made = done(engine, tmp_path, rows)
    assert made == {i: {"square": i * i} for i in range(8)}
    assert len((tmp_path / "3.pids").read_text().split()) == 2  # one killed, one that did it


def test_row_that_kills_its_workers_is_told_and_the_rest_is_done(
    engine: RayEngine, tmp_path: Path
) -> None:
    rows = [{"number": i, "poison": 5} for i in range(4, 8)]
    made = done(engine, tmp_path, rows)
    assert made.pop(5) == {"error": DIED}
    assert made == {i: {"square": i * i} for i in (4, 6, 7)}
