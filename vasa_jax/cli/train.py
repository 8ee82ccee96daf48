"""``vasa-jax train``: train one stage as a configuration says, or continue."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """\
Train the stage that a configuration describes, or continue where the run in --workdir stopped.

The run folder gets config.json (resolved), log.jsonl, parameters.txt, pictures/ and checkpoints/.
Ctrl-C or SIGTERM saves and ends with exit code 0; the same command continues exactly, same data
order included. If the loss stops being a number, the run ends with exit code 2 and keeps the batch.
"""

EXAMPLES = """\
examples:
  vasa-jax train --config configs/motion_lite.py --workdir runs/motion
  vasa-jax train --config configs/motion_lite.py:smoke --workdir runs/smoke
  vasa-jax train --config configs/face_256_lite.py --workdir runs/face \\
      --set optim.lr=1e-4 --set loop.checkpoint_minutes=5
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
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="change one value of the configuration, as in optim.lr=1e-4; may be repeated",
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="auto: continue the run in --workdir if there is one (default); never: refuse then",
    )


def run(args: argparse.Namespace) -> int:
    from vasa_jax.core import compile_cache
    from vasa_jax.core.config import load_config, override, to_json
    from vasa_jax.core.errors import UserError

    cfg = override(load_config(args.config), args.settings)
    if not hasattr(cfg, "task"):
        raise UserError(f"{args.config} is no training configuration (it has no task())")
    steps = args.steps if args.steps is not None else _steps(cfg)
    if steps < 1:
        raise UserError(f"--steps wants a positive number, got {steps}")
    compile_cache.enable()

    from vasa_jax.train import loop

    loop.run(
        cfg.task(),
        args.workdir,
        steps=steps,
        loop=getattr(cfg, "loop", None),
        seed=getattr(cfg, "seed", 0),
        config=to_json(cfg),
        resume=args.resume,
    )
    return 0


def _steps(cfg: Any) -> int:
    """The run's length: the configuration's own ``steps``, else its optimiser's schedule."""
    return int(cfg.steps if hasattr(cfg, "steps") else cfg.optim.steps)
