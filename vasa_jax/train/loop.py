"""The one training loop. A task says what to train; the loop does everything around it.

    batches ──prefetch thread──► task.step ──► metrics ──► log.jsonl, progress, stop on nan
                                     │
                                     └──► checkpoints, pictures, evaluation, on their intervals

Exact resume: a checkpoint is the whole ``TrainState``; the batch of step ``n`` is a pure function
of (seed, n) (``batches(n)``), and so is its random key. Training 4 steps therefore equals training
2, stopping, and training 2 more, bit for bit.

A run folder holds ``config.json``, ``stats.json``, ``parameters.txt``, ``log.jsonl``, ``pictures/``
and ``checkpoints/``; if the loss stops being a number, ``diverged_<step>.npz`` keeps the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.checkpoint.train_state import Checkpoints
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import flatten
from vasa_jax.train.log import (
    Meter,
    Progress,
    RunLog,
    finite,
    parameter_table,
    save_pictures,
    timed,
)
from vasa_jax.train.state import TrainState

PyTree = Any
Batch = Any


class Task(Protocol):
    """What a stage of training has to say. The rest is optional, see below.

    Optional methods, called if they are there:

    - ``initial_params(params) -> params``: start from other weights (fresh runs only);
    - ``pictures(state, step) -> dict[str, uint8 image]``: drawn at the start and on the interval;
    - ``evaluate(state) -> dict[str, float]``: held-out numbers;
    - ``stats() -> dict``: JSON-able statistics that inference needs, kept as ``stats.json``.
    """

    def init(self, key: jax.Array) -> TrainState:
        """The state at step 0. Must be traceable (it is shape-evaluated on resume)."""

    def step(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update (jitted inside, may donate ``state``) and scalar metrics, among them "loss".

        ``key`` belongs to this step alone.
        """

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Batches of steps start_step, start_step + 1, ...: a pure function of (seed, step).

        A pytree of numpy arrays with the samples on the first axis. Runs in its own thread, so it
        must not share buffers between batches.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Intervals, in steps; 0 switches one off."""

    log_every: int = 50
    picture_every: int = 1000
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 10.0  # whichever of the two comes first
    keep: int = 2
    prefetch: int = 2  # batches made ahead


class Diverged(UserError):
    """A loss or gradient stopped being a finite number; the message names the kept batch."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    state: TrainState
    step: int
    reason: Literal["finished", "interrupted"]
    message: str


def run(
    task: Task,
    workdir: str | Path,
    *,
    steps: int,
    loop: LoopConfig | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    resume: Literal["auto", "never"] = "auto",
) -> Outcome:
    """Train ``task`` until ``steps`` updates are done, starting or continuing in ``workdir``.

    ``config`` is the resolved config as JSON-able dict; it is kept in the run folder. SIGINT and
    SIGTERM save and return with reason "interrupted" (a second SIGINT stops at once). Raises
    ``Diverged`` when the loss is not finite, UserError when the folder does not fit.
    """
    loop = loop or LoopConfig()
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with _alone(workdir), Checkpoints(workdir, keep=loop.keep) as checkpoints:
        if resume == "never" and checkpoints.latest() is not None:
            raise UserError(
                f"{workdir} already holds a run at step {checkpoints.latest()}; "
                "give another --workdir, or --resume auto to continue it"
            )
        log = RunLog(workdir)
        progress = Progress(steps, checkpoints.latest() or 0)
        try:
            with _Signals(progress) as signals:
                trainer = _Run(task, workdir, steps, loop, seed, checkpoints, log, progress)
                trainer.start(dict(config or {}))
                return trainer.train(signals)
        finally:
            progress.close()
            log.close()


class _Run:
    """The loop's variables; ``train`` is the loop."""

    def __init__(
        self,
        task: Task,
        workdir: Path,
        steps: int,
        loop: LoopConfig,
        seed: int,
        checkpoints: Checkpoints,
        log: RunLog,
        progress: Progress,
    ):
        self.task, self.workdir, self.steps, self.loop = task, workdir, steps, loop
        self.seed, self.checkpoints, self.log, self.progress = seed, checkpoints, log, progress
        self.state: TrainState
        self.trained_s = 0.0  # over all sessions of this run
        self.meter = Meter()

    def start(self, config: dict[str, Any]) -> None:
        """Restore or initialise, and write what the run folder keeps."""
        key = jax.random.key(self.seed)
        if self.checkpoints.latest() is not None:
            self.state, meta = _restore(self.checkpoints, jax.eval_shape(self.task.init, key))
            self.trained_s = float(meta.get("trained_s", 0.0))
            step = int(self.state.step)
            self.progress.say(f"resumed from step {step} in {self.workdir}")
            changed = _changes(_read_json(self.workdir / "config.json"), config)
            if changed:
                self.progress.say("config changed since the run began: " + "; ".join(changed))
            self.log.write("event", step, event="resume", changed=changed)
        else:
            self.state = self.task.init(key)
            initial = getattr(self.task, "initial_params", None)
            if initial is not None:
                params = jax.tree.map(jnp.asarray, initial(self.state.params))
                # The average starts from the same weights, as a copy: steps may donate the state.
                self.state = dataclasses.replace(
                    self.state, params=params, ema=jax.tree.map(jnp.copy, params)
                )
            table = parameter_table(self.state.params)
            self.progress.say(table)
            _write_text(self.workdir / "parameters.txt", table + "\n")
            self.log.write("event", 0, event="start", seed=self.seed, **_machine())
        _write_text(self.workdir / "config.json", json.dumps(config, indent=1) + "\n")
        stats = getattr(self.task, "stats", None)
        if stats is not None:
            _write_text(self.workdir / "stats.json", json.dumps(stats()) + "\n")

    def train(self, signals: _Signals) -> Outcome:
        """The loop. Metrics are read one step late, so that the device never waits for Python."""
        loop, step = self.loop, int(self.state.step)
        began = saved = time.monotonic()
        pending: tuple[int, Batch, dict[str, jax.Array], float] | None = None
        if step == 0:
            self._look(0, first=True)

        with Prefetch(self.task.batches(step), size=loop.prefetch) as batches:
            stream = timed(batches)
            while step < self.steps and not signals.stop:
                batch, waited_s = next(stream, (None, 0.0))
                if batch is None:
                    self.progress.say(f"the batches ended at step {step}")
                    break
                key = self.state.step_key()
                self.state, metrics = self.task.step(self.state, batch, key)
                if pending is not None:
                    self._settle(pending)
                pending = (step, batch, metrics, waited_s)
                step += 1
                self.progress.advance(step)

                due = time.monotonic() - saved > 60 * loop.checkpoint_minutes > 0
                due = due or _every(loop.checkpoint_every, step)
                report = _every(loop.log_every, step) or step == self.steps
                look = _every(loop.picture_every, step) or _every(loop.evaluate_every, step)
                if (due or report or look) and pending is not None:
                    self._settle(pending)
                    pending = None
                if report:
                    self._report(step)
                paused = time.monotonic()
                if look:
                    self._look(step)
                if due:
                    self._save(step, self.trained_s + time.monotonic() - began)
                    saved = time.monotonic()
                self.meter.pause(time.monotonic() - paused)
        if pending is not None:
            self._settle(pending)
        self._save(step, self.trained_s + time.monotonic() - began)
        self.checkpoints.wait()
        return self._finish(step, signals, time.monotonic() - began)

    def _settle(self, pending: tuple[int, Batch, dict[str, jax.Array], float]) -> None:
        """Read the metrics of a step; stop the run if they are not finite."""
        step, batch, metrics, waited_s = pending
        numbers = {k: float(v) for k, v in jax.device_get(metrics).items()}
        self.meter.add(numbers, _samples(batch), waited_s)
        if not finite(numbers):
            self._diverge(step, batch, numbers)

    def _diverge(self, step: int, batch: Batch, numbers: dict[str, float]) -> None:
        path = self.workdir / f"diverged_{step}.npz"
        named = {k or "batch": np.asarray(a) for k, a in flatten(jax.device_get(batch)).items()}
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, **named)  # type: ignore[arg-type]  # names come from the batch
        unfinished.replace(path)
        self.log.write("event", step, event="diverged", metrics=numbers, batch=path.name)
        bad = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if not np.isfinite(v))
        last = self.checkpoints.latest()
        raise Diverged(
            f"step {step}: {bad}; its batch is kept in {path}; "
            + (f"the last checkpoint is step {last}" if last is not None else "no checkpoint yet")
            + "; lower optim.lr or look at that batch"
        )

    def _report(self, step: int) -> None:
        means = self.meter.take()
        self.log.write("train", step, **means)
        self.progress.report(step, means)

    def _look(self, step: int, *, first: bool = False) -> None:
        """Pictures and evaluation. A failure at the start is a bug and raises; later it is told."""
        pictures = getattr(self.task, "pictures", None)
        evaluate = getattr(self.task, "evaluate", None)
        try:
            if (
                pictures
                and self.loop.picture_every
                and (first or _every(self.loop.picture_every, step))
            ):
                save_pictures(self.workdir, step, pictures(self.state, step))
            if (
                evaluate
                and self.loop.evaluate_every
                and (first or _every(self.loop.evaluate_every, step))
            ):
                numbers = {k: float(v) for k, v in jax.device_get(evaluate(self.state)).items()}
                self.log.write("evaluate", step, **numbers)
                told = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
                self.progress.say(f"evaluation at step {step}: {told}")
        except Exception as error:
            if first:
                raise
            # Days of training are worth more than one picture.
            self.progress.say(f"step {step}: pictures or evaluation failed: {error!r}")
            self.log.write("event", step, event="look_failed", error=repr(error))

    def _save(self, step: int, trained_s: float) -> None:
        # Only after metrics were checked; a gradient can still be bad where the loss was not.
        if step == 0:
            return
        if not bool(_all_finite(self.state.params)):
            raise Diverged(
                f"step {step}: parameters are not finite, so nothing was saved; the last "
                f"checkpoint is step {self.checkpoints.latest()}; lower optim.lr"
            )
        state = self.state
        self.checkpoints.save(
            step,
            params=state.params,
            ema=state.ema,
            rest=_rest(state),
            meta={"seed": self.seed, "trained_s": trained_s, **_machine()},
        )

    def _finish(self, step: int, signals: _Signals, seconds: float) -> Outcome:
        if step < self.steps and signals.stop:
            message = (
                f"{signals.stop}: saved at step {step}; "
                f"the same command with --workdir {self.workdir} continues"
            )
            reason: Literal["finished", "interrupted"] = "interrupted"
        else:
            message = f"finished {step} steps; checkpoint in {self.checkpoints.folder}"
            reason = "finished"
        self.log.write("event", step, event=reason, seconds=seconds)
        self.progress.close()
        self.progress.say(message)
        return Outcome(state=self.state, step=step, reason=reason, message=message)


class Prefetch:
    """An iterator that makes the next items in one background thread.

    On an accelerator the items are also put on the device there. An exception of the source comes
    out of ``next``. Leaving the ``with`` ends the thread.
    """

    def __init__(self, source: Iterator[Batch], *, size: int = 2):
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=max(size, 1))
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._fill, args=(source,), daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(timeout=10.0)

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Batch:
        if self._ended:
            raise StopIteration
        what, item = self._queue.get()
        if what == "item":
            return item
        self._ended = True
        if what == "error":
            raise item
        raise StopIteration

    def _fill(self, source: Iterator[Batch]) -> None:
        # On CPU a numpy batch is as good as a device array, and stays out of JAX's memory.
        to_device = jax.default_backend() != "cpu"
        try:
            for item in source:
                if not self._put("item", jax.device_put(item) if to_device else item):
                    return
        except BaseException as error:  # noqa: B036  # handed to the thread that trains
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, what: str, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put((what, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


class _Signals:
    """SIGINT and SIGTERM ask the loop to stop; a second SIGINT is Python's own again."""

    def __init__(self, progress: Progress):
        self.stop = ""  # name of the signal that asked
        self._progress = progress
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.stop = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
    """Two runs in one folder would ruin each other's checkpoints; the second is refused."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, no protection
        yield
        return
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is training in {workdir}; stop it first") from None
        yield  # the lock ends with the file, also when the process is killed


def _rest(state: TrainState) -> dict[str, PyTree]:
    return {
        "opt_state": state.opt_state,
        "step": state.step,
        "key": state.key,
        "extra": state.extra,
    }


def _restore(checkpoints: Checkpoints, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint as a state with the structure of ``like`` (shapes suffice)."""
    params, ema, rest, meta = checkpoints.restore(
        params=like.params, ema=like.ema, rest=_rest(like)
    )
    return TrainState(params=params, ema=ema, **rest), meta


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def _samples(batch: Batch) -> int:
    """Samples in a batch: length of the first axis of the first array that has one."""
    return next((int(x.shape[0]) for x in jax.tree.leaves(batch) if np.ndim(x) > 0), 1)


def _machine() -> dict[str, str]:
    import vasa_jax

    return {
        "vasa_jax": getattr(vasa_jax, "__version__", "unknown"),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Leaves of two JSON values that differ, as "a.b: old -> new"."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for name in sorted({*before, *now}):
            inner = f"{path}.{name}" if path else name
            lines += _changes(before.get(name), now.get(name), inner)
        return lines
    if isinstance(now, tuple):
        now = list(now)
    return [] if before == now else [f"{path}: {before} -> {now}"]
