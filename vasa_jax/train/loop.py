"""The one training loop. A task says what to train; the loop does everything around it.

    batches ──prefetch thread──► task.update ──► metrics ──► logs, progress, stop on nan
                                      │
                                      └──► checkpoints, pictures, evaluation, on their intervals

One device or many: the state and each batch are placed on the mesh of ``LoopConfig.mesh``
(``core/mesh.py``), the update is compiled for it (``train/step.py``), and several processes go
through this loop together (``train/distributed.py``). Numbers of steps, batches and keys do not
depend on any of it, losses only by rounding.

Exact resume: a checkpoint is the whole ``TrainState``; the batch of step ``n`` is a pure function
of (seed, n) (``batches(n)``), and so is its random key. Training 4 steps therefore equals training
2, stopping, and training 2 more, bit for bit.

A run folder holds ``config.json``, ``stats.json``, ``parameters.txt`` (and memory), ``log.jsonl``,
``pictures/``, ``tensorboard/`` and ``checkpoints/``; if the loss stops being a number,
``diverged_<step>.npz`` keeps the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vasa_jax.checkpoint.train_state import Checkpoints
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import MeshConfig, batch_rows, make_mesh, place
from vasa_jax.core.tree import flatten
from vasa_jax.io.atomic import replacing
from vasa_jax.train import distributed
from vasa_jax.train.log import (
    Meter,
    Progress,
    RunLog,
    Waiting,
    finite,
    parameter_table,
    save_pictures,
)
from vasa_jax.train.prefetch import Prefetch, placed_batches
from vasa_jax.train.run_folder import (
    alone,
    changes,
    machine,
    make_folder,
    read_json,
    write_text,
)
from vasa_jax.train.saving import Diverged, Saving, restored
from vasa_jax.train.signals import Signals, Stopped
from vasa_jax.train.state import TrainState
from vasa_jax.train.step import TrainStep
from vasa_jax.train.task import Batch, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Intervals, in steps (0 switches one off), and the devices."""

    log_every: int = 50
    picture_every: int = 1000
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 10.0  # whichever of the two comes first
    keep: int = 2
    prefetch: int = 2  # batches made ahead
    workers: int = 0  # processes that make them; 0: a thread (train/prefetch.py)
    tensorboard: bool = True  # scalars in tensorboard/, where tensorboardX is installed
    mesh: MeshConfig = MeshConfig()


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
    exits: bool = False,
) -> Outcome:
    """Train ``task`` until ``steps`` updates are done, starting or continuing in ``workdir``.

    ``config`` is the resolved config as JSON-able dict; it is kept in the run folder. SIGINT and
    SIGTERM save and return with reason "interrupted"; where there is nothing to save yet they raise
    KeyboardInterrupt and SystemExit (``train/signals.py``). ``exits`` says that the process may be
    ended for either. Raises ``Diverged`` when the loss is not finite, UserError when the folder
    does not fit, or cannot be written at the end.
    """
    loop = loop or LoopConfig()
    workdir = Path(workdir)
    main = distributed.is_main()
    mesh = make_mesh(loop.mesh)
    signals = Signals(exits=exits, several=jax.process_count() > 1)
    try:
        with signals:
            if main:
                make_folder(workdir)
            distributed.barrier("folder")
            with (
                alone(workdir) if main else contextlib.nullcontext(),
                Checkpoints(workdir, keep=loop.keep) as checkpoints,
                contextlib.ExitStack() as stack,
            ):
                begun = checkpoints.latest()
                if resume == "never" and begun is not None:
                    raise UserError(
                        f"{workdir} already holds a run at step {begun}; "
                        "give another --workdir, or --resume auto to continue it"
                    )
                signals.at(begun or 0, begun)
                progress = Progress(steps, begun or 0, active=main)
                stack.callback(progress.close)
                signals.say, signals.close = progress.say, progress.close
                log = RunLog(
                    workdir,
                    tensorboard=loop.tensorboard,
                    from_step=begun or 0,
                    active=main,
                    say=progress.say,
                )
                stack.callback(log.close)
                if log.missing:
                    progress.say(log.missing)
                saving = Saving(
                    checkpoints, log, progress.say, seed=seed, minutes=loop.checkpoint_minutes
                )
                trainer = _Run(task, workdir, steps, loop, mesh, seed, saving, log, progress)
                with signals.leaving("the start"):
                    trainer.start(dict(config or {}))
                return trainer.train(signals)
    except Stopped:
        # Nothing was trained since the last checkpoint, and it was told.
        if signals.stop == "SIGINT":
            raise KeyboardInterrupt from None
        raise SystemExit(128 + signal.Signals[signals.stop]) from None


class _Run:
    """The loop's variables; ``train`` is the loop."""

    def __init__(
        self,
        task: Task,
        workdir: Path,
        steps: int,
        loop: LoopConfig,
        mesh: Mesh,
        seed: int,
        saving: Saving,
        log: RunLog,
        progress: Progress,
    ):
        self.task, self.workdir, self.steps, self.loop = task, workdir, steps, loop
        self.saving, self.log, self.progress = saving, log, progress
        self.mesh, self.main, self.seed = mesh, distributed.is_main(), seed
        self.step = TrainStep(task, mesh, loop.mesh, seed)
        self.state: TrainState
        self.meter = Meter()
        self._told: set[str] = set()  # failures of pictures and the like, each told once

    def start(self, config: dict[str, Any]) -> None:
        """Restore or initialise, and write what the run folder keeps."""
        table = parameter_table(
            self.step.shapes.params,
            shardings=self.step.shardings.params if self.mesh.size > 1 else None,
        )
        self._table = f"{table}\n"
        where = {"mesh": distributed.describe(self.mesh)}
        checkpoints = self.saving.checkpoints
        if checkpoints.latest() is not None:
            changed = changes(read_json(self.workdir / "config.json"), config)
            self.state, meta = restored(checkpoints, self.step.like(), changed)
            self.saving.trained_s = float(meta.get("trained_s", 0.0))
            step = int(self.state.step)
            self.progress.say(f"resumed from step {step} in {self.workdir}")
            if changed:
                self.progress.say("config changed since the run began: " + "; ".join(changed))
            self.log.write("event", step, event="resume", changed=changed, **where)
        else:
            self.state = self.step.init()
            initial = getattr(self.task, "initial_params", None)
            if initial is not None:
                params = place(initial(self.state.params), self.step.shardings.params)
                # The average starts from the same weights, as copies: steps donate the state.
                params, ema = jax.tree.map(jnp.copy, (params, params))
                self.state = dataclasses.replace(self.state, params=params, ema=ema)
            self.progress.say(table)
            self.log.write("event", 0, event="start", seed=self.seed, **machine(), **where)
        if self.mesh.size > 1:
            self.progress.say(f"mesh: {where['mesh']}")
        if not self.main:
            return
        write_text(self.workdir / "parameters.txt", self._table)
        write_text(self.workdir / "config.json", json.dumps(config, indent=1) + "\n")
        stats = getattr(self.task, "stats", None)
        if stats is not None:
            write_text(self.workdir / "stats.json", json.dumps(stats()) + "\n")

    def train(self, signals: Signals) -> Outcome:
        """The loop. Metrics are read one step late, so that the device never waits for Python."""
        loop, saving = self.loop, self.saving
        step = begun = int(self.state.step)
        pending: tuple[int, Batch, dict[str, jax.Array], float] | None = None
        votes = distributed.Votes(self.mesh, 2)
        stop = False
        if step == 0:
            with signals.leaving("the first pictures"):
                self._look(0, first=True)

        parts = getattr(getattr(getattr(self.task, "cfg", None), "optim", None), "accumulate", 1)
        source = placed_batches(
            self.task, self.mesh, step, parts=parts, workers=loop.workers, say=self.progress.say
        )
        began = time.monotonic()
        saving.begin()
        with Prefetch(source, size=loop.prefetch) as batches, Waiting(batches) as stream:
            while step < self.steps and not stop:
                try:
                    with signals.leaving("waiting for a batch"):
                        batch, waited_s = stream.next()
                        if batch is not None and self.step.cost is None:
                            self._prepare(step, batch)
                except (Stopped, Exception):
                    # A signal to all processes may have ended those that make batches first.
                    if not signals.stop or step == begun:
                        raise
                    break
                if batch is None:
                    self.progress.say(f"the batches ended at step {step}")
                    break
                self.state, metrics = self.step(self.state, batch)
                stream.computing(metrics["loss"])
                if pending is not None:
                    self._settle(pending)
                pending = (step, batch, metrics, waited_s)
                step += 1
                self.progress.advance(step)

                late = saving.due()
                signals.at(step, saving.checkpoints.latest())
                stop, due = votes.cast(bool(signals.stop), late)
                due = due or _every(loop.checkpoint_every, step)
                report = _every(loop.log_every, step) or step == self.steps
                look = _every(loop.picture_every, step) or _every(loop.evaluate_every, step)
                if report or look or due:
                    self._settle(pending)
                    pending = None
                if report:
                    self._report(step)
                paused = time.monotonic()
                if look and not stop:
                    # Left in the middle the state is as before; the loop then ends by itself.
                    with contextlib.suppress(Stopped), signals.leaving("pictures and evaluation"):
                        self._look(step)
                self.meter.pause(time.monotonic() - paused)
                if due:
                    self.meter.checkpoint(saving.save(step, self.state))
            batches.close()
            if pending is not None:
                self._settle(pending)
            if step > 0:
                saving.finish(step, self.state)
        # Another process may have heard the signal.
        stopped = signals.stop or ("stopped" if stop else "")
        return self._finish(step, stopped, time.monotonic() - began)

    def _prepare(self, step: int, batch: Batch) -> None:
        """Compile the step, and tell its memory and arithmetic."""
        began = time.monotonic()
        self.step.prepare(batch)
        cost = self.step.cost
        assert cost is not None  # known by now
        self.meter.flops = cost.flops
        self.progress.say(cost.table())
        self.log.write("event", step, event="compiled", **dataclasses.asdict(cost))
        if self.main:
            with self._beside(step, "parameters.txt"):
                write_text(self.workdir / "parameters.txt", f"{self._table}\n{cost.table()}\n")
        self.meter.pause(time.monotonic() - began)

    @contextlib.contextmanager
    def _beside(self, step: int, what: str) -> Iterator[None]:
        """A failure within is told (once, of its kind), and training goes on."""
        try:
            yield
        except Exception as error:
            told = str(error) if isinstance(error, UserError) else repr(error)
            if what not in self._told:
                self.progress.say(f"step {step}: {what} failed: {told}")
            self._told.add(what)
            self.log.write("event", step, event="look_failed", error=told)
        else:
            self._told.discard(what)

    def _settle(self, pending: tuple[int, Batch, dict[str, jax.Array], float]) -> None:
        """Read the metrics of a step; stop the run if they are not finite."""
        step, batch, metrics, waited_s = pending
        numbers = {k: float(v) for k, v in jax.device_get(metrics).items()}
        self.meter.add(numbers, batch_rows(batch, getattr(self.task, "shared", ())), waited_s)
        if not finite(numbers):
            self._diverge(step, batch, numbers)

    def _diverge(self, step: int, batch: Batch, numbers: dict[str, float]) -> None:
        # Every process keeps its own rows.
        own = "" if jax.process_count() == 1 else f"_{jax.process_index()}"
        path = self.workdir / f"diverged_{step}{own}.npz"
        named = {k or "batch": distributed.local_rows(a) for k, a in flatten(batch).items()}
        kept = f"its batch is kept in {path}"
        try:
            with replacing(path) as unfinished:
                np.savez(unfinished, **named)  # type: ignore[arg-type]  # names of the batch
        except UserError as error:
            kept = f"its batch could not be kept ({error})"
        self.log.write("event", step, event="diverged", metrics=numbers, batch=path.name)
        bad = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if not np.isfinite(v))
        raise Diverged(
            f"step {step}: {bad}; {kept}; {self.saving.last()}; "
            "lower optim.lr or look at that batch"
        )

    def _report(self, step: int) -> None:
        means = self.meter.take()
        self.log.write("train", step, **means)
        self.progress.report(step, means)

    def _look(self, step: int, *, first: bool = False) -> None:
        """Pictures and evaluation. A failure at the start is a bug and raises; later it is told."""
        wanted = {
            name: getattr(self.task, name, None)
            for name, interval in (
                ("pictures", self.loop.picture_every),
                ("evaluate", self.loop.evaluate_every),
            )
            if interval and (first or _every(interval, step))
        }
        pictures, evaluate = wanted.get("pictures"), wanted.get("evaluate")
        if not (pictures or evaluate):
            return
        state = distributed.gathered(self.state, self.mesh)  # by all processes together
        if not self.main:
            return
        # Days of training are worth more than one picture.
        guarded = contextlib.nullcontext() if first else self._beside(step, "drawing or evaluation")
        with guarded:
            if pictures:
                drawn = pictures(state, step)
                with self._beside(step, "keeping a picture"):
                    save_pictures(self.workdir, step, drawn)
            if evaluate:
                numbers = {k: float(v) for k, v in jax.device_get(evaluate(state)).items()}
                self.log.write("evaluate", step, **numbers)
                told = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
                self.progress.say(f"evaluation at step {step}: {told}")

    def _finish(self, step: int, stopped: str, seconds: float) -> Outcome:
        reason: Literal["finished", "interrupted"] = "finished"
        if step < self.steps and stopped:
            message = (
                f"{stopped}: saved at step {step}; "
                f"the same command with --workdir {self.workdir} continues"
            )
            reason = "interrupted"
        elif step == 0:
            message = "no step was done, and nothing is saved"
        else:
            message = f"finished {step} steps; checkpoint in {self.saving.checkpoints.folder}"
        self.log.write("event", step, event=reason, seconds=seconds)
        self.progress.close()
        self.progress.say(message)
        return Outcome(state=self.state, step=step, reason=reason, message=message)


def _every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0
