"""``vasa-jax release``: make a release from training runs, or look at one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vasa_jax.core.space import MotionSpace, space_config, space_of

DESCRIPTION = """\
A release is a folder with all that inference needs: weights, configuration, statistics, card and
checksums. `build` makes one from the newest checkpoints (averaged weights) of runs; with `--base`
what is not named comes from another release. Unless you name others, the head is the one that the
face run was trained with, and the card is drafted from the runs' configurations. `show` verifies a
release and says what is in it.
"""

EXAMPLES = """\
examples:
  vasa-jax release build --face runs/face --motion runs/motion -o releases/mine
  vasa-jax release build --face runs/face --motion runs/motion --card card.md \\
      --float16 face motion -o releases/mine
  vasa-jax release build --base lite --student runs/student -o releases/mine \\
      --float16 face motion student head
  vasa-jax release show lite
  vasa-jax release show releases/mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    verbs = parser.add_subparsers(dest="action", required=True, metavar="build|show")

    build = verbs.add_parser("build", help="make a release from training runs")
    build.add_argument(
        "--base", metavar="NAME|DIR|URL", help="release that gives all that is not named here"
    )
    build.add_argument("--face", metavar="RUNDIR", help="run of stage 1")
    build.add_argument("--motion", metavar="RUNDIR", help="run of stage 2")
    build.add_argument(
        "--student", metavar="RUNDIR",
        help="run of train/distill.py: few-step weights beside the motion model's, used by default",
    )  # fmt: skip
    build.add_argument(
        "--head",
        metavar="FILE.npz",
        help="the reduced head (default: the one that the face run was trained with)",
    )
    build.add_argument(
        "--card",
        metavar="FILE.md",
        help="what the release says (default: a draft from the runs' configurations)",
    )
    build.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to make")
    build.add_argument(
        "--float16",
        nargs="*",
        default=[],
        metavar="PART",
        help="parts to store in half precision: face, motion, student, head",
    )
    build.add_argument(
        "--drop",
        nargs="*",
        default=[],
        metavar="PATH",
        help="leave out what only training needs, as in face/discriminator",
    )
    build.add_argument(
        "--generate",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="how its motion is sampled unless the user says otherwise: sampler, steps, grid, "
        "temperature, guidance, as in steps=4; a distilled run brings its own",
    )
    build.add_argument("--overwrite", action="store_true", help="replace an existing folder")

    show = verbs.add_parser("show", help="verify a release and print what is in it")
    show.add_argument("release", metavar="NAME|DIR|URL")
    show.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    return _build(args) if args.action == "build" else _show(args)


def _build(args: argparse.Namespace) -> int:
    from vasa_jax.checkpoint.release import load_release, save_release
    from vasa_jax.cli import release_parts as parts
    from vasa_jax.core.errors import UserError

    params: dict[str, Any] = {}
    config: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    card = ""
    if args.base:
        base = load_release(args.base)
        params, config, stats = dict(base.params), dict(base.config), dict(base.stats)
        card = base.card
    else:
        missing = [f"--{n}" for n in ("face", "motion") if not getattr(args, n)]
        if missing:
            raise UserError(f"{', '.join(missing)} missing; or name a release with --base")
    if args.card and not Path(args.card).is_file():
        raise UserError(f"no card file {args.card}; without --card one is written from the runs")
    if args.motion:  # a student of another teacher
        params.pop("student", None)
        config.pop("student", None)
        stats.pop("student", None)
    steps: dict[str, int] = dict(config.get("steps", {}))
    if args.motion:
        steps.pop("student", None)
    named = {"face": args.face, "motion": args.motion, "student": args.student}
    runs = {stage: Path(workdir) for stage, workdir in named.items() if workdir}
    for stage, workdir in runs.items():
        steps[stage], params[stage], config[stage], table = parts.read_run(workdir, stage)
        if table is not None:
            stats[stage] = table
    if args.student:
        if "generate" not in config["student"]:
            raise UserError(f"{args.student} is no student; train one with motion_lite_distill.py")
        if stats.pop("student", None) != stats.get("motion"):
            raise UserError(f"{args.student} was distilled from other statistics than --motion's")
        if config["student"]["model"] != config["motion"]["model"]:
            raise UserError(f"{args.student} has another model than {args.motion or args.base}")
    if args.head:
        params["head"] = parts.read_head(Path(args.head))
    elif args.face:
        try:
            params["head"] = parts.head_of_run(config["face"])
        except UserError as error:
            if not args.base:
                raise
            print(f"the head of {args.base} is kept: {error}", file=sys.stderr)
    parts.check_parts(params, config, stats)
    for path in args.drop:
        _drop(params, path)
    config["steps"] = steps
    sampling = (config["motion"] if args.motion else config).get("generate")
    if sampling or args.generate:
        space = space_of(space_config(config["motion"]))
        config["generate"] = _sampling(sampling or {}, args.generate, space)
    if args.card:
        card = Path(args.card).read_text(encoding="utf-8")
    elif runs:  # the base's card would say what is no longer so
        card = parts.card_of_runs(Path(args.output).name, config, runs)
        if args.base:
            card += f"\n## The base release, {args.base}\n\n{_lowered(base.card)}"
    digest = save_release(
        args.output,
        params,
        config,
        stats,
        card,
        float16=args.float16,
        overwrite=args.overwrite,
    )
    megabytes = sum(f.stat().st_size for f in Path(args.output).iterdir()) / 1e6
    print(f"{args.output}  {megabytes:.1f} MB  sha256 {digest}")
    if runs and not args.card:
        print(f"its card is a draft: {Path(args.output) / 'card.md'}; --card FILE.md brings yours")
    return 0


def _lowered(card: str) -> str:
    """A card as a section of another: its headings two levels down."""
    lines = card.splitlines(keepends=True)
    return "".join(f"##{line}" if line.startswith("#") else line for line in lines)


def _show(args: argparse.Namespace) -> int:
    from vasa_jax.checkpoint.release import load_release

    release = load_release(args.release)
    files = {f.name: f.stat().st_size for f in sorted(release.path.iterdir()) if f.is_file()}
    if args.json:
        out = {
            "name": release.name,
            "path": str(release.path),
            "sha256": release.sha256,
            "files": files,
            "face": _face_kind(release.config),
            "motion_space": _motion_space(release.config),
            "parameters": {part: _count(tree) for part, tree in release.params.items()},
            "config": release.config,
        }
        print(json.dumps(out))
        return 0
    print(f"{release.name}  {release.path}\nsha256 {release.sha256} (all files match)\n")
    for name, size in files.items():
        print(f"  {name:<20} {size / 1e6:>8.2f} MB")
    print()
    for part, tree in release.params.items():
        print(f"  {part:<20} {_count(tree):>12,} parameters")
    print(f"\n  face of kind {_face_kind(release.config)}")
    print(f"  motion space {_motion_space(release.config)}")
    print(f"\n{release.card.strip()}")
    return 0


def _face_kind(config: dict[str, Any]) -> str:
    return config.get("face", {}).get("kind", "warp")


def _motion_space(config: dict[str, Any]) -> str:
    return space_config(config.get("motion", {})).describe()


def _sampling(table: dict[str, Any], settings: list[str], space: MotionSpace) -> dict[str, Any]:
    """The "generate" part of a release's config: the run's own, changed as asked."""
    from vasa_jax.core.config import override, to_json
    from vasa_jax.generate.offline import GenerateDefaults

    chosen = to_json(override(GenerateDefaults.of(table, space), settings))
    return to_json(GenerateDefaults.of(chosen, space))


def _drop(params: dict[str, Any], path: str) -> None:
    from vasa_jax.core.errors import UserError

    *branches, last = path.split("/")
    node: Any = params
    for branch in branches:
        node = node.get(branch) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise UserError(f"--drop {path}: nothing of that name")
    del node[last]


def _count(tree: Any) -> int:
    from vasa_jax.core.tree import count

    return count(tree)
