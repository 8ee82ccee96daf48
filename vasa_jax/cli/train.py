"""``vasa-jax train``: train one stage as a configuration says, or continue."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vasa_jax.cli.settings import add_settings, configured

DESCRIPTION = """\
Train the stage that a configuration describes, or continue where the run in --workdir stopped.

The run folder gets config.json (resolved), log.jsonl, tensorboard/, parameters.txt, pictures/ and
checkpoints/. Ctrl-C or SIGTERM saves and ends with exit code 0; the same command continues exactly,
same data order included, also on other devices. Ctrl-C again ends at once, without saving. Before
the first step there is nothing to save, and the exit code is 130 or 143.

A full disk does not end a run: logs wait, checkpoints are tried again every minute, both are told.
If the last checkpoint cannot be saved either, the exit code is 2, and the same command continues
from the one before. If the loss stops being a number, the run ends with exit code 2 and keeps the
batch.

All devices of the machine are used (of smoke variants, as many as their small batch divides over,
loop.mesh.devices): the batch is divided among them (loop.mesh.data), and with loop.mesh.fsdp=N also
parameters, optimiser and average. Several machines train as one: the same
command on each, with --cluster under SLURM, Kubernetes or Open MPI, else with the last three
options. The folder must be one that all of them see.

What a run costs is told by itself: the table after the first step has memory per device and
operations per step; each line of the log has seconds per step (data, compute, checkpoint), examples
and TFLOP per second. The heads of configs/*.py say what was measured.
"""

EXAMPLES = """\
examples:
  vasa-jax train --config configs/motion_lite.py --workdir runs/motion
  vasa-jax train --config configs/motion_lite.py:smoke --workdir runs/smoke
  vasa-jax train --config configs/face_256_lite.py --workdir runs/face \\
      --set optim.lr=1e-4 --set loop.checkpoint_minutes=5
  vasa-jax train --config configs/motion_base.py --workdir runs/base \\
      --set loop.mesh.fsdp=4 --set optim.accumulate=2
  srun vasa-jax train --config configs/motion_base.py --workdir runs/base --cluster
  vasa-jax train --config configs/motion_base.py --workdir runs/base \\
      --coordinator first.host:7777 --processes 2 --process-id 0      (and 1 on the other host)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--config", required=True, metavar="FILE.py[:VARIANT]", help="what to train; see configs/"
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the folder of this run")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="stop when N updates are done in all; the learning rate's schedule keeps its length "
        "(that is --set optim.steps=N)",
    )
    add_settings(parser)
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue the run in --workdir if there is one (default); never: refuse then",
    )
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--cluster",
        action="store_true",
        help="join the other processes of this SLURM, Kubernetes or Open MPI job",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where process 0 listens for the others"
    )
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="I", help="which this is, from 0")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.core.config import to_json
    from vasa_jax.core.errors import UserError
    from vasa_jax.runtime import compile_cache
    from vasa_jax.train import distributed

    distributed.initialize(
        coordinator=args.coordinator,
        processes=args.processes,
        process_id=args.process_id,
        cluster=args.cluster,
    )
    cfg = configured(args)
    if not hasattr(cfg, "task"):
        raise UserError(f"{args.config} is no training configuration (it has no task())")
    steps = args.steps if args.steps is not None else _steps(cfg)
    if steps < 1:
        raise UserError(f"--steps wants a positive number, got {steps}")
    compile_cache.enable()
    fitting = _fitted(cfg)  # before data and nets are loaded

    from vasa_jax.train import loop

    loop.run(
        cfg.task(),
        args.workdir,
        steps=steps,
        loop=fitting,
        seed=getattr(cfg, "seed", 0),
        config=to_json(cfg),
        resume=args.resume,
        exits=True,
    )
    return 0


def _fitted(cfg: Any) -> Any:
    """The configuration's ``loop``, on devices that its batch divides over.

    Raises UserError when it does not, naming the setting.
    """
    import dataclasses

    import jax

    from vasa_jax.core import mesh as meshes

    loop = getattr(cfg, "loop", None)
    if loop is None:
        return None
    option, rows = _batch(cfg)
    parts = getattr(getattr(cfg, "optim", None), "accumulate", 1)
    if not rows:
        return loop
    count = jax.device_count()
    mesh = meshes.fitted(loop.mesh, rows, parts, jax.local_device_count(), jax.process_count())
    used = meshes.make_mesh(mesh).size
    meshes.check_batch(meshes.make_mesh(mesh), rows, parts, option)
    if loop.mesh.devices == -1 and used < count and jax.process_index() == 0:
        why = f"{option}={rows} does not divide over more"
        print(f"{used} of {count} devices are used: {why}", file=sys.stderr)
    return dataclasses.replace(loop, mesh=mesh)


def _batch(cfg: Any) -> tuple[str, int]:
    """The setting that says how many examples a batch has, and how many; 0 where none does."""
    for name, part in (("batch", cfg), ("data.batch", getattr(cfg, "data", None))):
        rows = getattr(part, "batch", None)
        if isinstance(rows, int):
            return name, rows
    return "", 0


def _steps(cfg: Any) -> int:
    """The run's length: the configuration's own ``steps``, else its optimiser's schedule."""
    return int(cfg.steps if hasattr(cfg, "steps") else cfg.optim.steps)
