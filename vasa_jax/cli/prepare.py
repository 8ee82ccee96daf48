"""``vasa-jax prepare``: folders of videos in, clips of talking people out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Turn videos of people into clips that both stages are trained on: one face each, 2 to 10 seconds,
in one square, with landmarks, the head's pose and shape, gaze, distance, foreground, and sound that
fits the mouth. RAW are folders (read to any depth) or files; CLIPS gets shards of records.

The same command goes on where a run ended, was interrupted or killed, and takes videos that came
later; what is finished is never touched. What is refused keeps its reason:

  vasa-jax prepare report CLIPS     what is in a folder, who, how it looks; and why the rest is not
  vasa-jax prepare split CLIPS --held-out 10     names people that training shall not see

Show only people who agreed to it, and keep the videos' licences: --set licence='CC BY 4.0, ...'.
"""

EXAMPLES = """\
examples:
  vasa-jax prepare holiday.mp4 -o clips --person me --set size=256
  vasa-jax prepare raw -o clips --identities people.csv --workers 8
  vasa-jax prepare vox2 -o clips --config configs/prepare.py:voxceleb2 --shard 3/64
  vasa-jax prepare raw -o clips --engine ray --address auto
"""
ACTIONS = ("report", "split")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vasa_jax.cli.settings import add_settings

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("raw", nargs="+", metavar="RAW", help="folders or files of videos")
    parser.add_argument("-o", "--out", type=Path, metavar="CLIPS", help="folder for the clips")
    parser.add_argument(
        "--config", default="", metavar="FILE.py[:VARIANT]",
        help="what clips must be; see configs/prepare.py (512 px squares)",
    )  # fmt: skip
    add_settings(parser)
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--identities", type=Path, metavar="CSV", help="who is who: lines as anna/*.mp4,Anna"
    )
    people.add_argument("--person", default="", metavar="NAME", help="all videos show this person")
    parser.add_argument(
        "--head", type=Path, metavar="FILE.npz", help="reduced head to fit (the bundled release's)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (one per core); 0: none"
    )
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="do part I of N, from 0")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--address", default="", metavar="A", help="of a Ray cluster, as in auto")
    report = parser.add_argument_group("report and split")
    report.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    report.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    report.add_argument("--held-out", type=int, metavar="N", help="people that are held out")
    report.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, others")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.core.errors import UserError

    if args.raw[0] in ACTIONS and not args.out:
        from vasa_jax.cli import prepare_report

        if len(args.raw) != 2:
            raise UserError(f"vasa-jax prepare {args.raw[0]} CLIPS: give one folder of clips")
        return getattr(prepare_report, args.raw[0])(Path(args.raw[1]), args)
    if not args.out:
        raise UserError("where to? give a folder for the clips with -o CLIPS")
    return _prepare(args)


def _prepare(args: argparse.Namespace) -> int:
    from vasa_jax.cli.progress import Progress
    from vasa_jax.core.errors import UserError
    from vasa_jax.prepare.identity import Identities
    from vasa_jax.prepare.run import Preparation
    from vasa_jax.runtime.places import typed

    cfg = _config(args)
    identities = Identities(cfg.people, args.identities, args.person)
    shard = _shard(args.shard)
    engine = _engine(args)
    progress = Progress(left=True)
    try:
        preparation = Preparation(
            cfg, args.out, engine, identities=identities, shard=shard, head=args.head, say=progress
        )
        made = preparation.run([typed(place) for place in args.raw])
    finally:
        progress.close()
        engine.close()
    _tell(made, args)
    if not made.clips:
        raise UserError("none of it could be used; vasa-jax prepare report CLIPS says why")
    return 0


def _config(args: argparse.Namespace) -> Any:
    from vasa_jax.cli.settings import configured
    from vasa_jax.core.config import override
    from vasa_jax.core.errors import UserError
    from vasa_jax.prepare.config import PrepareConfig

    if not args.config:
        return override(PrepareConfig(), args.settings)
    cfg = configured(args)
    if not isinstance(cfg, PrepareConfig):
        raise UserError(f"{args.config} is no configuration of prepare; see configs/prepare.py")
    return cfg


def _shard(text: str) -> tuple[int, int]:
    from vasa_jax.core.errors import UserError

    part, _, count = text.partition("/")
    if not (part.isdigit() and count.isdigit() and int(part) < int(count)):
        raise UserError(f"--shard {text}: give a part and a number of parts, as in 0/8 to 7/8")
    return int(part), int(count)


def _engine(args: argparse.Namespace) -> Any:
    import os

    from vasa_jax.core.errors import UserError
    from vasa_jax.prepare.engine import HereEngine, LocalEngine

    if args.workers is not None and args.workers < 0:
        raise UserError("--workers must be 0 or more")
    if args.engine == "ray":
        from vasa_jax.prepare.engine_ray import RayEngine

        return RayEngine(args.address, args.workers or 0)
    if args.address:
        raise UserError("--address is for --engine ray")
    workers = args.workers if args.workers is not None else len(os.sched_getaffinity(0))
    return LocalEngine(workers) if workers else HereEngine()


def _tell(made: Any, args: argparse.Namespace) -> None:
    import json

    if args.json:
        print(json.dumps({
            "videos": made.videos, "clips": made.clips, "new": made.new,
            "seconds": round(made.seconds, 2), "refused": dict(made.refused),
            "errors": dict(made.errors),
        }))  # fmt: skip
        return
    print(f"{made.videos} videos: {made.clips} clips, {made.seconds / 60:.1f} minutes "
          f"({made.new} new) in {args.out}")  # fmt: skip
    for kind, table in (("refused", made.refused), ("failed, tried again next time", made.errors)):
        for text, count in table.most_common():
            print(f"  {kind}: {count} x {text}", file=sys.stderr)
