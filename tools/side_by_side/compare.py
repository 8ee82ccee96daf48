"""Rounds over all forms of a size: build, check against each other, time in turn, weigh.

Every form is a process. On a CPU a part gets fresh processes, built one after the other, so that
compile times and peak memory are its own; on a GPU the processes stay and build at the same time.
A round lets every form run once, for at least ``SAMPLE_MS``, one after the other: what else the
machine does falls on all alike. Forms in float32 whose result is not that of XLA are not timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.side_by_side.scenes import Part
from tools.side_by_side.worker import FORMS

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "XLA"
SAMPLE_MS = 60.0
PAUSE_S = 0.02  # idle threads of the other framework spin for a while before they sleep
# Largest mean absolute gap to XLA in float32, as a share of the reference's deviation. Random
# numbers through many layers; pictures are uint8, where one level is about 0.01.
LIMIT = {"cpu": 2e-3, "gpu": 3e-2}  # on a GPU both use TF32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured."""

    size: str
    device: str
    quick: bool
    forms: tuple[str, ...]
    part_seconds: float = 30.0  # of timing per part, compiling apart
    build_seconds: float = 900.0  # after which a form counts as failed
    rounds: tuple[int, int] = (5, 40)
    only: tuple[str, ...] = ()  # names of parts; empty: all


class Process:
    """A worker and its answers."""

    def __init__(self, form: str, settings: Settings, log: Path):
        self.form = form
        command = [sys.executable, "-m", "tools.side_by_side.worker", form, settings.size,
                   settings.device]  # fmt: skip
        self._log = log.open("a")
        self._process = subprocess.Popen(
            command + (["quick"] if settings.quick else []), cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.asked = True  # it says when it is ready

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, **command: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer; {"failed": why} when there is none in time."""
        try:
            line = self._answers.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self.stop()
            return {"failed": f"stopped after {seconds:.0f} s"}
        if not line:
            self._answers.put("")  # it has ended: whoever asks again need not wait
            self._process.wait()
            return {"failed": f"its process ended with {self._process.returncode}"}
        return json.loads(line)

    def call(self, seconds: float, **command: Any) -> dict[str, Any]:
        self.ask(**command)
        return self.answer(seconds)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


class Comparison:
    """Rows of one size; ``rows`` grows part by part, so that what is done can always be kept."""

    def __init__(self, settings: Settings, say: Callable[[str], None], log: Path):
        self.settings, self.say, self.log = settings, say, log
        self.rows: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {}
        self.processes: dict[str, Process] = {}
        self.deadline = float("inf")

    def within(self, seconds: float) -> float:
        """``seconds``, or what is left until the deadline."""
        return min(seconds, max(self.deadline - time.monotonic(), 1.0))

    def run(self, parts: list[Part], deadline: float) -> None:
        """All parts, until ``deadline`` (``time.monotonic``); the rest are marked as not run."""
        self.deadline = deadline
        try:
            for part in parts:
                if time.monotonic() > deadline:
                    self.rows.append(self._row(part) | {"skipped": "out of time"})
                    continue
                self.say(f"{self.settings.size} {part.key}: {part.title}")
                row = self._row(part)
                self.rows.append(row)
                self._part(part, row)
        finally:
            self.stop()

    def _row(self, part: Part) -> dict[str, Any]:
        return {**dataclasses.asdict(part), "forms": {}, "parity": {}}

    def stop(self) -> None:
        for process in self.processes.values():
            process.stop()
        self.processes.clear()

    def _part(self, part: Part, row: dict[str, Any]) -> None:
        if self.settings.device == "cpu":
            self.stop()
        running = self._build(part, row)
        with tempfile.TemporaryDirectory() as folder:
            self._parity(row, running, Path(folder))
        running = {f: p for f, p in running.items() if "failed" not in row["forms"][f]}
        self._time(row, running, self.within(self.settings.part_seconds))
        for form, process in running.items():
            if process.alive:
                row["forms"][form] |= process.call(self.within(300.0), do="memory")
        for form, result in row["forms"].items():
            self.say(f"  {form:22}{_brief(result)}")

    def _build(self, part: Part, row: dict[str, Any]) -> dict[str, Process]:
        """Processes that hold the part; failures are noted in the row."""
        cfg, together = self.settings, self.settings.device == "gpu"
        running: dict[str, Process] = {}

        def finish(form: str) -> None:
            process = self.processes[form]
            if process.asked:
                ready = process.answer(self.within(cfg.build_seconds))
                process.asked = False
                if "failed" in ready:
                    row["forms"][form] = ready
                    self._lost(form)
                    return
                if form not in self.about:
                    process.ask(do="about")
                    self.about[form] = process.answer(self.within(cfg.build_seconds))
            process.ask(do="build", part=part.name, batch=part.batch)
            if not together:
                answer(form)

        def answer(form: str) -> None:
            result = self.processes[form].answer(self.within(cfg.build_seconds))
            row["forms"][form] = result
            if "failed" not in result:
                running[form] = self.processes[form]
            elif not self.processes[form].alive:
                self._lost(form)

        for form in cfg.forms:
            if form not in self.processes:
                self.processes[form] = Process(form, cfg, self.log)
            if not together:
                finish(form)
        if together:
            for form in cfg.forms:
                finish(form)
            for form in [f for f in cfg.forms if f in self.processes]:
                answer(form)
        return running

    def _lost(self, form: str) -> None:
        self.processes.pop(form).stop()

    def _parity(self, row: dict[str, Any], running: dict[str, Process], folder: Path) -> None:
        """Gaps of every form to XLA in float32; those beyond the limit are not timed."""
        made: dict[str, dict[str, np.ndarray]] = {}
        for i, (form, process) in enumerate(running.items()):
            path = folder / f"{i}.npz"
            answer = process.call(self.within(600.0), do="outputs", path=str(path))
            if "failed" in answer:
                row["forms"][form] |= answer
                continue
            with np.load(path) as arrays:
                made[form] = {name: arrays[name].astype(np.float64) for name in arrays.files}
        reference = made.get(REFERENCE)
        if reference is None:
            return
        for form, outputs in made.items():
            if form == REFERENCE:
                continue
            gap = parity(reference, outputs)
            strict = not form.endswith("bf16")
            gap["limit"] = LIMIT[self.settings.device] if strict else None
            row["parity"][form] = gap
            if strict and not gap["relative"] <= gap["limit"]:
                row["forms"][form]["failed"] = f"parity: {gap['relative']:.2g}"

    def _time(self, row: dict[str, Any], running: dict[str, Process], seconds: float) -> None:
        calls, spent = {}, 0.0
        for form in running:
            second = row["forms"][form]["second_s"] * 1e3
            calls[form] = max(1, round(SAMPLE_MS / max(second, 1e-3)))
            spent += calls[form] * second / 1e3 + PAUSE_S
        low, high = self.settings.rounds
        rounds = int(np.clip(seconds / max(spent, 1e-3), low, high))
        samples: dict[str, list[float]] = {form: [] for form in running}
        until = time.monotonic() + 3 * seconds
        for i in range(rounds):
            order = list(samples)
            if not order or time.monotonic() > until:
                break
            for form in order[i % len(order) :] + order[: i % len(order)]:
                time.sleep(PAUSE_S)
                wait = self.within(3 * seconds + 60)
                result = running[form].call(wait, do="run", calls=calls[form])
                if "failed" in result:
                    row["forms"][form] |= result
                    samples.pop(form)
                else:
                    samples[form].append(result["ms"])
        for form, values in samples.items():
            row["forms"][form] |= summary(values) | {"calls": calls[form]}


def summary(values: list[float]) -> dict[str, Any]:
    """Median and spread of a sample of milliseconds."""
    p10, p50, p90 = np.percentile(values, (10, 50, 90))
    return {"ms": float(p50), "p10": float(p10), "p90": float(p90), "samples": len(values)}


def parity(reference: dict[str, np.ndarray], made: dict[str, np.ndarray]) -> dict[str, Any]:
    """The worst gap over all arrays: mean and largest, in deviations of the reference.

    A number is compared with its own size. Raises ValueError when names or shapes differ.
    """
    if set(reference) != set(made):
        raise ValueError(f"{sorted(made)} instead of {sorted(reference)}")
    gaps = []
    for name, expected in reference.items():
        if made[name].shape != expected.shape:
            raise ValueError(f"{name}: {made[name].shape} instead of {expected.shape}")
        scale = float(expected.std()) if expected.ndim else float(abs(expected))
        gap = np.abs(made[name] - expected) / max(scale, 1e-12)
        gaps.append((gap.mean(), gap.max()))
    relative, largest = np.max(gaps, axis=0)  # NaN where any is
    return {"relative": float(relative), "largest": float(largest)}


def ratios(row: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(PyTorch form, XLA form, time of the first over the second) at equal precision."""
    forms = {f: r["ms"] for f, r in row["forms"].items() if "ms" in r and "failed" not in r}
    for ours in (f for f in forms if FORMS[f][0] == "xla"):
        for theirs in (f for f in forms if FORMS[f][0] == "torch"):
            if FORMS[theirs][2] == FORMS[ours][2]:
                yield theirs, ours, forms[theirs] / forms[ours]


def _brief(result: dict[str, Any]) -> str:
    if "ms" not in result:
        return str(result.get("failed", "not timed"))
    return (
        f"{result['ms']:9.2f} ms ({result['p10']:.2f} .. {result['p90']:.2f}), first call "
        f"{result['first_call_s']:.1f} s, peak {result.get('peak_mb') or 0:.0f} MB"
    )
