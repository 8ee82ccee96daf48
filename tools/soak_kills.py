"""Trainings disturbed at random moments, again and again; see tools/soak_kills.

One disturbance per session of a run, at a moment drawn from its start on (imports and compilation
included):

    kill    SIGKILL to the trainer alone: its workers have to notice
    stop    SIGTERM or SIGINT to the whole group, as a scheduler or a terminal does
    full    the disk is full; after a while there is room again and the session is killed later, or
            it is stopped while there is none

After each: no process of the session is left; the checkpoints that were whole before, or that a
line has reported, are what the next session continues from; unless it was killed, nothing
half-written lies about. At last the run is let alone to its end, and its parameters, average and
log must equal those of a run that was never disturbed, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ("configs/face_256_lite.py:smoke", "configs/motion_lite.py:smoke")
KINDS = ("kill", "kill", "stop", "full", "full, stop")
ENDS = {"kill": {-9}, "stop": {0, 130, 143}, "full": {-9}, "full, stop": {0, 2, 130, 143}}


@dataclasses.dataclass
class Disk:
    """What the runs lie on, and how it gets full for one process."""

    folder: Path
    small: bool  # a file system of its own

    def fill(self, pid: int) -> None:
        if not self.small:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
            return
        filler = (self.folder / "filler").open("wb", buffering=0)
        with filler as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self, pid: int) -> None:
        if self.small:
            (self.folder / "filler").unlink(missing_ok=True)
        else:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def running(session: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def whole(run: Path) -> int:
    """The newest checkpoint that has its own name."""
    folder = run / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def half_written(run: Path) -> list[str]:
    return [p.name for p in run.rglob("*") if ".part" in p.name or "checkpoint-tmp" in p.name]


class Training:
    """One run, session by session."""

    def __init__(self, config: str, disk: Disk, workers: int, seed: int):
        self.name = config.split("/")[-1].replace(".py", "")
        self.run = disk.folder / self.name.replace(":", "_")
        self.disk, self.rng = disk, random.Random(f"{seed} {config}")
        self.words = [sys.executable, "-m", "vasa_jax", "train", "--config", config]
        for setting in (
            f"loop.workers={workers}", "loop.checkpoint_every=5", "loop.log_every=1",
            "loop.picture_every=20", "loop.evaluate_every=20",
        ):  # fmt: skip
            self.words += ["--set", setting]
        self.saved = 0  # what was reported, or seen whole
        self.faults: list[str] = []

    def start(self, run: Path, steps: int) -> tuple[subprocess.Popen[str], Path]:
        said = run.with_name(f"{run.name}.said")
        if self.disk.small:  # what is said must not fill the disk
            said = Path(tempfile.gettempdir()) / f"{os.getpid()}_{said.name}"
        words = [*self.words, "--workdir", str(run), "--steps", str(steps)]
        with said.open("w") as file:
            process = subprocess.Popen(
                words, cwd=ROOT, stdout=file, stderr=file, text=True, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        return process, said

    def moment(self, process: subprocess.Popen[str], said: Path, patience_s: float) -> None:
        """Wait for a moment: half of them anywhere, half a little after the first step."""
        if self.rng.random() < 0.4:
            time.sleep(self.rng.uniform(0.3, 12.0))
            return
        began = time.monotonic()
        while "step " not in said.read_text().replace("at step", "").replace("from step", ""):
            if process.poll() is not None or time.monotonic() - began > patience_s:
                return
            time.sleep(0.05)
        time.sleep(self.rng.uniform(0.0, 4.0))

    def disturb(self, kind: str, patience_s: float) -> str:
        """One session and its disturbance; a line of the table."""
        process, said = self.start(self.run, 100_000)
        began = time.monotonic()
        self.moment(process, said, patience_s)
        number = self.rng.choice((signal.SIGTERM, signal.SIGINT))
        if kind.startswith("full"):
            self.disk.fill(process.pid)
            time.sleep(self.rng.uniform(1.0, 6.0))
            if kind == "full":
                self.disk.free(process.pid)
                time.sleep(self.rng.uniform(0.5, 4.0))
        at = time.monotonic() - began
        before = whole(self.run)
        asked = time.monotonic()
        if process.poll() is not None:
            pass  # it should not have ended; its status tells
        elif kind in ("kill", "full"):
            process.kill()
        else:
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.faults.append(f"{kind}: still there after a minute")
            process.kill()
            process.wait()
        took = time.monotonic() - asked
        if self.disk.small:
            self.disk.free(process.pid)
        text = said.read_text()
        deadline = time.monotonic() + 10
        while (left := running(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        resumed = re.search(r"resumed from step (\d+)", text)
        begun = int(resumed[1]) if resumed else 0
        parts = half_written(self.run) if kind == "stop" or kind == "full, stop" else []
        reported = [int(n) for n in re.findall(r"(?:saved at step|checkpoint is step) (\d+)", text)]
        lost = bool(resumed) and begun < self.saved
        trace = text.count("Traceback (most")
        for fault, is_so in (
            (f"ended with {process.returncode}", process.returncode not in ENDS[kind]),
            (f"{len(left)} processes left", bool(left)),
            (f"half-written: {parts}", bool(parts)),
            (f"went on from {begun}, {self.saved} was saved", lost),
            (f"{trace} tracebacks", trace > 0),
        ):
            if is_so:
                self.faults.append(f"{kind}: {fault}; it said: {text[-2000:]}")
        self.saved = max([self.saved, before, *reported])
        now = whole(self.run)
        if now < self.saved:
            self.faults.append(f"{kind}: step {self.saved} was saved, step {now} is there")
        return (
            f"{self.name:<22} {kind:<10} {at:>6.1f} {begun or '-':>8} {self.saved or '-':>8} "
            f"{process.returncode:>5} {took:>6.1f} {len(left):>5} {len(parts):>6} {trace:>7}"
        )

    def end(self, patience_s: float) -> str:
        """Let the run finish, and compare it with one that nobody disturbed."""
        steps, ends = whole(self.run) + 7, []
        whole_run = self.run.with_name(f"{self.run.name}_undisturbed")
        for run in (self.run, whole_run):
            process, said = self.start(run, steps)
            if process.wait(timeout=10 * patience_s) != 0:
                self.faults.append(f"the end failed: {said.read_text()[-2000:]}")
                return f"{self.name}: the end failed"
            ends.append(said.read_text())
        resumed = re.search(r"resumed from step (\d+)", ends[0])
        begun = int(resumed[1]) if resumed else 0
        if begun < self.saved:
            self.faults.append(f"went on from {begun}, {self.saved} was saved")
        if left := half_written(self.run):
            self.faults.append(f"half-written at the end: {left}")
        differing = differences(self.run, whole_run, steps)
        self.faults += differing
        for run in (self.run, whole_run):
            shutil.rmtree(run)
        same = "the same" if not differing else "NOT the same"
        return f"{self.name}: {steps} steps, {same} as undisturbed (parameters, average, log)"


def differences(run: Path, other: Path, steps: int) -> list[str]:
    """What two runs of so many ``steps`` do not share, bit for bit."""
    from vasa_jax.checkpoint.train_state import read_params
    from vasa_jax.core.tree import flatten
    from vasa_jax.train.log import read_log

    found = []
    for item in ("params", "ema"):
        (_, one), (_, two) = (read_params(folder, item=item) for folder in (run, other))
        a, b = flatten(one), flatten(two)
        if a.keys() != b.keys() or any(not np.array_equal(a[k], b[k]) for k in a):
            found.append(f"{item} differ")
    # A session that was killed may have come further than the end, and nothing of it was saved.
    logs = [
        [(x["step"], x["loss"]) for x in read_log(folder) if x["step"] <= steps]
        for folder in (run, other)
    ]
    if logs[0] != logs[1]:
        found.append("logs differ")
    return found


def soak(args: argparse.Namespace) -> list[str]:
    """All trainings; returns what was wrong."""
    small = args.small_disk is not None
    base = Path(args.small_disk or args.folder or tempfile.mkdtemp(prefix="soak_kills_"))
    disk, faults = Disk(base, small), []
    print(
        f"{'training':<22} {'what':<10} {'at s':>6} {'went on':>8} {'saved':>8} {'exit':>5} "
        f"{'took s':>6} {'left':>5} {'parts':>6} {'traces':>7}"
    )
    for config in args.config:
        training = Training(config, disk, args.workers, args.seed)
        kinds = [KINDS[n % len(KINDS)] for n in range(args.events)]
        training.rng.shuffle(kinds)
        for kind in kinds:
            print(training.disturb(kind, args.patience), flush=True)
        print(training.end(args.patience), flush=True)
        faults += [f"{training.name}: {fault}" for fault in training.faults]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/soak_kills", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=20, help="for each training (20)")
    parser.add_argument("--config", nargs="+", default=CONFIGS, metavar="FILE.py:VARIANT")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches (1)")
    parser.add_argument(
        "--small-disk", metavar="DIR", help="a file system of its own, to be filled"
    )
    parser.add_argument("--folder", metavar="DIR", help="for the runs (default: a temporary one)")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds for a first step")
    parser.add_argument("--seed", type=int, default=0)
    faults = soak(parser.parse_args())
    print("\n".join(["", f"{len(faults)} faults", *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
