"""``vasa-jax release``: make a release from training runs, or look at one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

DESCRIPTION = """\
A release is a folder with all that inference needs: weights, configuration, statistics, card and
checksums. `build` makes one from the newest checkpoints (averaged weights) of runs; with `--base`
what is not named comes from another release. `show` verifies one and says what is in it.
"""

EXAMPLES = """\
examples:
  vasa-jax release build --face runs/face --motion runs/motion --head head.npz \\
      --card card.md --float16 face motion -o releases/mine
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
    build.add_argument("--head", metavar="FILE.npz", help="the reduced head")
    build.add_argument("--card", metavar="FILE.md", help="what the release says")
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
    from vasa_jax.checkpoint.train_state import read_params
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
        missing = [f"--{n}" for n in ("face", "motion", "head", "card") if not getattr(args, n)]
        if missing:
            raise UserError(f"{', '.join(missing)} missing; or name a release with --base")
    if args.card:
        if not Path(args.card).is_file():
            raise UserError(f"no card file {args.card}")
        card = Path(args.card).read_text(encoding="utf-8")
    if args.motion:  # a student of another teacher
        params.pop("student", None)
        config.pop("student", None)
    steps: dict[str, int] = dict(config.get("steps", {}))
    named = {"face": args.face, "motion": args.motion, "student": args.student}
    runs = {stage: Path(workdir) for stage, workdir in named.items() if workdir}
    for stage, workdir in runs.items():
        steps[stage], params[stage] = read_params(workdir)
        if not (workdir / "config.json").is_file():
            raise UserError(f"{workdir} has no config.json; it is not a finished run folder")
        config[stage] = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        if (workdir / "stats.json").is_file():
            stats[stage] = json.loads((workdir / "stats.json").read_text(encoding="utf-8"))
    if args.student:
        if "generate" not in config["student"]:
            raise UserError(f"{args.student} is no student; train one with motion_lite_distill.py")
        if stats.pop("student", None) != stats.get("motion"):
            raise UserError(f"{args.student} was distilled from other statistics than --motion's")
        if config["student"]["model"] != config["motion"]["model"]:
            raise UserError(f"{args.student} has another model than {args.motion}")
    if args.head:
        params["head"] = _read_arrays(Path(args.head))
    for path in args.drop:
        _drop(params, path)
    config["steps"] = steps
    sampling = (config["motion"] if args.motion else config).get("generate")
    if sampling or args.generate:
        config["generate"] = _sampling(sampling or {}, args.generate)
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
    return 0


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
    print(f"\n{release.card.strip()}")
    return 0


def _sampling(table: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """The "generate" part of a release's config: the run's own, changed as asked."""
    from vasa_jax.core.config import from_json, override, to_json
    from vasa_jax.generate.offline import GenerateDefaults

    return to_json(override(from_json(GenerateDefaults, table), settings))


def _read_arrays(path: Path) -> dict[str, Any]:
    """All arrays of an .npz as a flat or nested dict ("a/b" names nest)."""
    import numpy as np

    from vasa_jax.core.errors import UserError
    from vasa_jax.core.tree import unflatten

    try:
        with np.load(path, allow_pickle=False) as data:
            return unflatten({name: data[name] for name in data.files})
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the head {path}: {error}") from error


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
