"""Half an hour of a GPU, fully used and unattended; see tools/gpu_half_hour.

How many steps fit is not known before they ran: a stage first makes a few in a folder of their own,
which also compiles its programs, and then as many as its time allows, so that its learning rate
comes down before the time is over. What takes longer than that after all is stopped as by Ctrl-C:
it is saved, and goes on with the next call.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.bench_vs_torch import why_not_jax
from vasa_jax.train.log import read_log

ROOT = Path(__file__).resolve().parent.parent
PROBE = 60  # steps, the last third of which tells how long one takes
SAVING_S = 20.0  # of a stage's time, for its last checkpoint
GRACE_S = 60.0  # after the time is over, for a checkpoint of what was stopped


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of ``vasa-jax train``."""

    name: str
    config: str
    needs: str  # environment variable with its data's folder
    share: float  # of the time that is left for training
    settings: Mapping[str, str]  # what a GPU with 24 GB or more has room for
    smoke: Mapping[str, str]


STAGES = (
    Stage(
        "face", "face_256_lite", "VASA_FACES", 0.45,
        {"initial": "lite", "batch": "32"}, {},
    ),
    Stage(
        "motion", "motion_lite", "VASA_DATA", 0.30,
        {"initial": "lite", "data.batch": "128"}, {},
    ),
    Stage(
        "student", "motion_lite_distill", "VASA_DATA", 0.25,
        {"teacher": "{motion}", "student": "lite", "data.batch": "64"}, {"teacher": "{motion}"},
    ),
)  # fmt: skip
PARTS = ("compare", *(stage.name for stage in STAGES), "release")


def steps_within(seconds: float, start_s: float, step_s: float) -> int:
    """How many steps of ``step_s`` fit beside a start and the last checkpoint; at least one."""
    return max(int((seconds - start_s - SAVING_S) / step_s), 1)


def step_seconds(workdir: Path) -> float:
    """Mean of the last third of the logged steps.

    Raises:
      ValueError: no step was logged.
    """
    logged = [row["step_s"] for row in read_log(workdir, "train")]
    if not logged:
        raise ValueError(f"the log of {workdir} tells of no step")
    last = logged[-max(len(logged) // 3, 1) :]
    return sum(last) / len(last)


def run(command: Sequence[str], seconds: float) -> tuple[int, bool]:
    """Exit status of a command of Python's, and whether it was interrupted: its time was over."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    try:
        return process.wait(timeout=max(seconds, 1.0)), False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=GRACE_S), True
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(), True


class HalfHour:
    def __init__(self, args: argparse.Namespace):
        self.args, self.runs = args, args.runs
        self.end = time.monotonic() + 60 * args.minutes
        self.done: list[str] = []
        self.failed: list[str] = []

    def left(self) -> float:
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{self.left() / 60:.1f} min left] {text}", flush=True)

    def wanted(self, stage: Stage) -> bool:
        if self.args.only and stage.name not in self.args.only:
            return False
        if not self.args.smoke and not os.environ.get(stage.needs):
            self.say(f"{stage.name}: left out, {stage.needs} names no folder with data")
            return False
        return True

    def compare(self) -> None:
        command = ["-m", "tools.gpu_compare", "--device", self.args.device]
        command += ["--minutes", str(min(8.5, self.left() / 60 - 1))]
        command += ["--quick"] if self.args.smoke else []
        self.note("compare", *run(command, self.left()))

    def train(self, stage: Stage, seconds: float) -> None:
        began, workdir = time.monotonic(), self.runs / stage.name
        if not (workdir / "config.json").is_file():
            probe = self.runs / f"{stage.name}_probe"
            status, stopped = run(self.command(stage, probe, PROBE, "loop.log_every=10"), seconds)
            if status or stopped:
                self.note(f"{stage.name}, first steps", status or 1, stopped)
                return
            step_s = step_seconds(probe)
            took = time.monotonic() - began
            steps = steps_within(seconds - took, max(took - PROBE * step_s, 0.0), step_s)
            self.say(f"{stage.name}: {step_s:.3f} s a step, {steps} steps")
        else:
            steps = json.loads((workdir / "config.json").read_text())["optim"]["steps"]
        rest = seconds - (time.monotonic() - began)
        self.note(stage.name, *run(self.command(stage, workdir, steps), rest))

    def command(self, stage: Stage, workdir: Path, steps: int, *more: str) -> list[str]:
        smoke = self.args.smoke
        config = f"configs/{stage.config}.py" + (":smoke" if smoke else "")
        chosen = {**(stage.smoke if smoke else stage.settings), "optim.steps": str(steps)}
        out = ["-m", "vasa_jax", "train", "--config", config, "--workdir", str(workdir)]
        taught = self.runs / "motion"
        teacher = taught if (taught / "checkpoints").is_dir() else "lite"
        for name, value in chosen.items():
            out += ["--set", f"{name}={value.format(motion=teacher)}"]
        for setting in more:
            out += ["--set", setting]
        return out

    def release(self) -> None:
        """The bundled release with what was learned in its place."""
        command = ["-m", "vasa_jax", "release", "build", "--base", "lite", "--overwrite"]
        command += ["--float16", "face", "motion", "student", "head"]
        found = [s.name for s in STAGES if (self.runs / s.name / "checkpoints").is_dir()]
        for name in found:
            command += [f"--{name}", str(self.runs / name)]
        command += ["-o", str(self.runs / "release")]
        if not found:
            self.say("release: nothing was trained")
            return
        self.note("release", *run(command, max(self.left(), 60.0)))

    def note(self, part: str, status: int, stopped: bool) -> None:
        saved = "stopped when its time was over, saved; it goes on with the next call"
        good = saved if stopped else "done"
        self.say(f"{part}: {good if status == 0 else f'ended with status {status}'}")
        (self.failed if status else self.done).append(part)

    def all(self) -> int:
        only = self.args.only or PARTS
        if "compare" in only:
            self.compare()
        stages = [stage for stage in STAGES if self.wanted(stage)]
        for i, stage in enumerate(stages):
            part = stage.share / sum(s.share for s in stages[i:])
            if self.left() < 30:
                self.say(f"{stage.name}: no time is left")
                continue
            self.train(stage, part * self.left())
        if "release" in only and not self.args.smoke:
            self.release()
        print(f"done: {', '.join(self.done) or 'nothing'}; runs and release in {self.runs}")
        return 1 if self.failed or not self.done else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/gpu_half_hour", description=(__doc__ or "").split(";")[0]
    )
    parser.add_argument("--minutes", type=float, default=29.0, help="for everything (default 29)")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu")
    parser.add_argument("--smoke", action="store_true", help="smallest models on bundled data")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    missing = why_not_jax() if args.device == "gpu" else None
    if missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    return HalfHour(args).all()


if __name__ == "__main__":
    raise SystemExit(main())
