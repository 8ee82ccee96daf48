"""Do two commits train alike? For changes that must not change what is learned.

    tools/loss_compare main my-branch --config configs/motion_lite.py:smoke --steps 40
    tools/loss_compare HEAD .           # the last commit and the files as they lie here

Each commit is checked out into a folder of its own and trained there with the same seed, data and
settings, one after the other, in this environment. Every loss of every step is compared as the log
tells it (six digits). Exit code 0: identical. 1: not; a table says where they part, and by how
much. 2: one of them could not be trained.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Of the machine and the moment, not of what is learned.
MEASURED = ("kind", "step", "samples_per_s", "data_wait", "step_s", "data_s", "compute_s",
            "checkpoint_s", "tflops_per_s", "device_gb")  # fmt: skip
ROWS = 12  # of the table
# Older commits have no ``python -m vasa_jax``.
MAIN = "import sys; from vasa_jax.cli.main import main; sys.exit(main())"


class Difference(NamedTuple):
    """A loss that is not the same in both runs; None where a run does not have it."""

    step: int
    name: str
    first: float | None
    second: float | None

    @property
    def relative(self) -> float:
        """Of the larger one; infinite where one is missing or no number."""
        if self.first is None or self.second is None:
            return math.inf
        gap = abs(self.first - self.second)
        return gap / max(abs(self.first), abs(self.second)) if math.isfinite(gap) else math.inf


def differences(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[Difference]:
    """All losses of two logs (lines of ``kind`` train) that are not equal, in order of step."""
    tables = [{int(row["step"]): row for row in rows} for rows in (first, second)]
    found = []
    for step in sorted(tables[0].keys() | tables[1].keys()):
        rows = [table.get(step, {}) for table in tables]
        for name in sorted((rows[0].keys() | rows[1].keys()) - set(MEASURED)):
            a, b = (_number(row.get(name)) for row in rows)
            if a != b and not (a is not None and b is not None and a != a and b != b):
                found.append(Difference(step, name, a, b))
    return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # the log writes "nan" as text


def describe(found: list[Difference], steps: int) -> str:
    """One line when there is nothing, else a table of the first and the largest differences."""
    if not found:
        return f"identical: every loss of all {steps} lines of the log"
    largest: dict[str, Difference] = {}
    for d in found:
        if d.name not in largest or d.relative > largest[d.name].relative:
            largest[d.name] = d
    rows = [("first, of each loss", d) for d in {d.name: d for d in reversed(found)}.values()]
    rows = sorted(rows, key=lambda row: row[1].step)[:ROWS]
    rows += [("largest", d) for d in sorted(largest.values(), key=lambda d: -d.relative)[:ROWS]]
    lines = ["| | step | loss | first | second | relative |", "|---|---|---|---|---|---|"]
    for which, d in rows:
        a, b = ("-" if v is None else f"{v:.6g}" for v in (d.first, d.second))
        lines.append(f"| {which} | {d.step} | {d.name} | {a} | {b} | {d.relative:.2g} |")
    return "\n".join([f"NOT identical: {len(found)} losses differ", "", *lines])


@contextlib.contextmanager
def tree_of(commit: str, folder: Path) -> Iterator[Path]:
    """The files of a commit, "." for those that lie here."""
    if commit == ".":
        yield ROOT
        return
    made = subprocess.run(
        ["git", "worktree", "add", "--detach", "--force", str(folder), commit],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        raise SystemExit(_said(f"no commit {commit}: {made.stderr.strip().splitlines()[-1]}"))
    try:
        yield folder
    finally:
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, capture_output=True
        )


def trained(tree: Path, workdir: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The training lines of a run's log."""
    settings = ["loop.evaluate_every=0", "loop.picture_every=0", "loop.log_every=1", *args.set]
    command = [sys.executable, "-c", MAIN, "train", "--config", args.config,
               "--workdir", str(workdir), *(f"--set={s}" for s in settings)]  # fmt: skip
    if args.steps:
        command += ["--steps", str(args.steps)]
    # Programs kept for one commit are not for the other; both compile alike, from nothing.
    env = os.environ | {"PYTHONPATH": str(tree), "VASA_CACHE": str(workdir.parent / "cache")}
    done = subprocess.run(command, cwd=tree, env=env, stdout=sys.stderr)
    log = workdir / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    rows = [row for row in rows if row.get("kind") == "train"]
    if done.returncode or not rows:
        raise SystemExit(_said(f"the run of {tree} ended with exit code {done.returncode}"))
    return rows


def _said(text: str) -> int:
    print(f"loss_compare: {text}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/loss_compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("first", metavar="COMMIT", help='a commit, branch or tag; "." is here')
    parser.add_argument("second", metavar="COMMIT")
    parser.add_argument(
        "--config",
        default="configs/motion_lite.py:smoke",
        metavar="FILE:VARIANT",
        help="in each commit's own version (configs/motion_lite.py:smoke)",
    )
    parser.add_argument("--steps", type=int, help="stop after so many (the configuration's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the configuration, for both; may be repeated",
    )
    parser.add_argument("--json", metavar="FILE", help="also write all differences")
    args = parser.parse_args(argv)
    logs = []
    with tempfile.TemporaryDirectory() as folder:
        for name, commit in (("first", args.first), ("second", args.second)):
            print(f"{name}: {commit}", file=sys.stderr)
            place = Path(folder) / name
            place.mkdir()
            with tree_of(commit, place / "tree") as tree:
                logs.append(trained(tree, place / "run", args))
    found = differences(*logs)
    print(describe(found, len(logs[0])))
    if args.json:
        report = {"commits": [args.first, args.second], "config": args.config,
                  "lines": [len(rows) for rows in logs], "identical": not found,
                  "differences": [d._asdict() for d in found]}  # fmt: skip
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
