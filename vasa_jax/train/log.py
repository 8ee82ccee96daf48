"""What a run tells: a progress line, ``log.jsonl``, TensorBoard, pictures, a parameter table.

Lines of ``log.jsonl`` (one JSON object each)::

    {"kind": "train", "step": 100, "loss": ..., "samples_per_s": ..., "data_wait": ..., ...}
    {"kind": "evaluate", "step": 1000, ...}
    {"kind": "event", "step": 0, "event": "start" | "resume" | "save_failed" | ..., ...}

Where a step's time goes, means since the line before: ``step_s`` is the whole, ``data_s`` that in
which the devices had nothing to do because no batch was there, ``compute_s`` the rest (the devices,
and Python where they wait for it); ``data_wait`` is ``data_s / step_s``; ``checkpoint_s`` held up
the loop in all since then, on top of the steps. ``tflops_per_s`` are the operations of
``train/cost.py`` over ``step_s``, on all devices together.

Numbers that are not finite are written as strings ("nan"), so that every line is valid JSON.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vasa_jax.core.tree import flatten
from vasa_jax.io.atomic import replacing
from vasa_jax.train.side_file import SideFile
from vasa_jax.train.tensorboard import EventFile

PyTree = Any
RATES = ("samples_per_s", "tflops_per_s")


class RunLog:
    """Appends to ``workdir/log.jsonl``, a line at a time, so a crash loses at most one.

    Numbers also go to TensorBoard files in ``workdir/tensorboard`` where ``tensorboard`` is asked
    for and tensorboardX is installed; ``missing`` says so in a line where it is not. A disk that is
    full is told to ``say`` once, and what could not be written follows when there is space again.
    ``active=False`` writes nothing at all (processes other than the first).
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        tensorboard: bool = False,
        from_step: int = 0,
        active: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.path = Path(workdir) / "log.jsonl"
        self.missing = ""
        self._say, self._told = say, ""
        self._files: list[SideFile] = []
        self._board: EventFile | None = None
        if not active:
            return
        self._files.append(SideFile(self.path))
        self._files[0].end_broken_line()
        if tensorboard:
            try:
                # What a killed run wrote beyond its checkpoint is hidden, then written anew.
                self._board = EventFile(Path(workdir) / "tensorboard", purge_step=from_step + 1)
            except ImportError:
                self.missing = (
                    "no TensorBoard files: tensorboardX is missing (pip install 'vasa-jax[train]')"
                )
            else:
                self._files.append(self._board.file)

    def write(self, kind: str, step: int, **values: Any) -> None:
        if not self._files:
            return
        line = {"kind": kind, "step": step, **{k: _jsonable(v) for k, v in values.items()}}
        self._files[0].append((json.dumps(line) + "\n").encode())
        if self._board is not None and kind != "event":
            for name, value in values.items():
                self._board.scalar(f"{kind}/{name}", float(value), step)
        trouble = next((f.trouble for f in self._files if f.trouble), "")
        if trouble and not self._told:
            self._say(f"{trouble}; training goes on, and the lines follow when it can be again")
        elif self._told and not trouble:
            self._say("the logs can be written again, and are whole")
        self._told = trouble

    def close(self) -> None:
        for file in self._files:
            if lacks := file.close():
                self._say(f"{file.trouble}; the last {lacks} bytes are lost")
        self._files, self._board = [], None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_log(workdir: str | Path, kind: str = "train") -> list[dict[str, Any]]:
    """The lines of one kind, in order of step.

    A run that was killed and resumed writes some steps twice; the later line wins. A line cut in
    half by a crash is skipped.
    """
    lines: dict[Any, dict[str, Any]] = {}
    with (Path(workdir) / "log.jsonl").open(encoding="utf-8") as file:
        for number, text in enumerate(file):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line.get("kind") == kind:
                # Events of one step are all kept; measurements of one step replace each other.
                lines[(line["step"], number if kind == "event" else 0)] = line
    return [lines[k] for k in sorted(lines)]


def _jsonable(value: Any) -> Any:
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    number = float(value)
    # Six digits say all that a log can; full doubles triple the file.
    return float(f"{number:.6g}") if math.isfinite(number) else str(number)


def save_pictures(workdir: str | Path, step: int, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Write uint8 images (Y, X, 3) or (Y, X) as ``pictures/<name>/<step>.png``.

    UserError where there is no room.
    """
    from PIL import Image

    paths = []
    for name, image in pictures.items():
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise ValueError(f"picture {name!r}: uint8 (Y, X[, 3]) expected, got {image.dtype}")
        path = Path(workdir) / "pictures" / name / f"{step:08d}.png"
        with replacing(path) as unfinished:
            Image.fromarray(image).save(unfinished, format="PNG")
        paths.append(path)
    return paths


def parameter_table(
    params: PyTree, *, depth: int = 2, rows: int = 40, shardings: PyTree | None = None
) -> str:
    """Parameters and bytes per module, as text; ``depth`` path parts make a row.

    More than ``rows`` modules are shown one level up. ``shardings`` (a tree like ``params``) adds
    what one device has of them.
    """
    leaves = flatten(params)
    where = flatten(shardings) if shardings is not None else {}
    while True:
        groups: dict[str, list[int]] = {}
        for name, leaf in leaves.items():
            key = "/".join(name.split("/")[:depth])
            size = int(np.prod(leaf.shape))
            item = np.dtype(leaf.dtype).itemsize
            shape = tuple(leaf.shape)
            own = where[name].shard_shape(shape) if name in where else shape
            group = groups.setdefault(key, [0, 0, 0])
            group[0] += size
            group[1] += size * item
            group[2] += int(np.prod(own)) * item
        if len(groups) <= rows or depth == 1:
            break
        depth -= 1
    groups["total"] = [sum(g[i] for g in groups.values()) for i in range(3)]
    width = max(len(k) for k in groups)
    head = f"{'module':<{width}}  {'parameters':>12}  {'MB':>8}"
    lines = [f"{k:<{width}}  {n:>12,}  {b / 1e6:>8.2f}" for k, (n, b, _) in groups.items()]
    if where:
        head += f"  {'MB/device':>9}"
        own_bytes = (g[2] for g in groups.values())
        lines = [f"{line}  {b / 1e6:>9.2f}" for line, b in zip(lines, own_bytes, strict=True)]
    return "\n".join([head, *lines])


def finite(metrics: Mapping[str, float]) -> bool:
    """Whether everything named loss... and grad_norm is a finite number."""
    watched = [v for k, v in metrics.items() if k.startswith("loss") or k == "grad_norm"]
    return all(math.isfinite(v) for v in watched)


class Progress:
    """One moving line on a terminal (rich), a plain line per report elsewhere."""

    def __init__(
        self, total: int, start: int, stream: TextIO | None = None, *, active: bool = True
    ):
        self.total = total
        self._active = active  # processes other than the first are silent
        self._stream = stream or sys.stderr
        self._rich: Any = None
        self._task: Any = None
        self._start, self._began, self._anchored = start, time.monotonic(), False
        if active and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._rich = Bar(
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
            )
            self._task = self._rich.add_task("first step: compiling", total=total, completed=start)
            self._rich.start()

    def advance(self, step: int) -> None:
        """Move the bar; free on plain streams."""
        if self._rich is not None:
            self._rich.update(self._task, completed=step)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the means since the last report, and when the run will be done.

        Of the times only the rates: the log has the rest.
        """
        done = max(step - self._start, 1)
        left = (time.monotonic() - self._began) / done * (self.total - step)
        if not self._anchored:  # from now on without the compilation of the first step
            self._start, self._began, self._anchored = step, time.monotonic(), True
        shown = [k for k in metrics if not k.endswith("_s") or k in RATES]
        order = sorted(shown, key=lambda k: not k.startswith("loss"))  # what matters first
        numbers = "  ".join(f"{k} {metrics[k]:.4g}" for k in order)
        text = f"{numbers}  left {_duration(left)}"
        if self._rich is not None:
            self._rich.update(self._task, completed=step, description=text)
        else:
            self.say(f"step {step}/{self.total}  {text}")

    def say(self, text: str) -> None:
        """A line that stays. Where nobody can read it any more (a closed pipe, a terminal that is
        gone, a full disk) the run goes on all the same."""
        with contextlib.suppress(OSError):
            if self._rich is not None:
                self._rich.console.print(text, markup=False, highlight=False)
            elif self._active:
                print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with contextlib.suppress(OSError):
            if self._rich is not None:
                self._rich.stop()


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s"


class Meter:
    """Means of metrics, rates, and where the time went between two reports.

    ``flops`` is what one step computes (0: not known).
    """

    def __init__(self, flops: float = 0.0) -> None:
        self.flops = flops
        self._anew()

    def _anew(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._samples = self._steps = 0
        self._waited_s = self._checkpoint_s = 0.0
        self._began = time.monotonic()

    def add(self, metrics: Mapping[str, float], samples: int, waited_s: float) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._samples += samples
        self._steps += 1
        self._waited_s += waited_s

    def pause(self, seconds: float) -> None:
        """Take time that was not training (compiling, pictures, evaluation) out of the rates."""
        self._began += seconds

    def checkpoint(self, seconds: float) -> None:
        """As ``pause``, for time that a checkpoint held up the loop."""
        self._checkpoint_s += seconds
        self._began += seconds

    def take(self) -> dict[str, float]:
        """The means since the last call, then start anew."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        means = {k: self._sums[k] / self._counts[k] for k in self._sums}
        steps = max(self._steps, 1)
        waited = min(self._waited_s, elapsed)
        means["samples_per_s"] = self._samples / elapsed
        means["data_wait"] = waited / elapsed
        means["step_s"] = elapsed / steps
        means["data_s"] = waited / steps
        means["compute_s"] = (elapsed - waited) / steps
        means["checkpoint_s"] = self._checkpoint_s
        if self.flops:
            means["tflops_per_s"] = self.flops * self._steps / elapsed / 1e12
        self._anew()
        return means


class Waiting:
    """How long the devices had nothing to do because the next item was not there.

    Waiting for an item while they still compute costs nothing, so a second thread notes when the
    newest array that ``computing`` was told of is done.
    """

    def __init__(self, items: Iterator[Any]):
        self._items = items
        self._watch = concurrent.futures.ThreadPoolExecutor(1, "devices-done")
        self._done: concurrent.futures.Future[float] | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.shutdown(wait=False, cancel_futures=True)

    def computing(self, array: Any) -> None:
        """The devices work until ``array`` is there."""
        self._done = self._watch.submit(_when_done, array)

    def next(self) -> tuple[Any, float]:
        """The next item (None at the end) and the seconds of idleness that it cost."""
        began = time.monotonic()
        item = next(self._items, None)
        now = time.monotonic()
        if self._done is None:
            return item, now - began
        return item, max(now - max(began, self._done.result()), 0) if self._done.done() else 0.0


def _when_done(array: Any) -> float:
    array.block_until_ready()
    return time.monotonic()
