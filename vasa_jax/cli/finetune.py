"""``vasa-jax finetune``: a release that looks and moves more like one person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Three minutes of one person's video make a release that looks and moves more like them: train both
stages of a release on for a short while, and its few-step student after them. The clips come from
`vasa-jax prepare`.

--consent says in words who allowed it; it is kept in the release's card. Steps that are done are
not done again: after Ctrl-C the same command goes on where it was.

A release made like this is one person's. It draws others worse than its base does, the longer it
was trained on the more; --face-steps, --motion-steps and --student-steps say how long, 0 leaves a
part as it was.
"""

EXAMPLES = """\
examples:
  vasa-jax prepare holiday.mp4 -o clips --config configs/prepare.py:small
  vasa-jax finetune clips -o releases/me --consent "it is a video of myself"
  vasa-jax generate me.jpg speech.wav -o me.mp4 --release releases/me
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder made by vasa-jax prepare")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RELEASE")
    parser.add_argument("--consent", required=True, metavar="TEXT", help="who allowed it, and how")
    parser.add_argument("--base", default="lite", metavar="NAME|DIR", help="release to begin with")
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="where the runs lie (RELEASE.runs)"
    )
    parser.add_argument(
        "--encoder", default="", metavar="RUN",
        help="a run of configs/motion_encoder.py that reads motion off landmarks (the head's fits)",
    )  # fmt: skip
    for part, steps in (("face", 400), ("motion", 500), ("student", 200)):
        parser.add_argument(
            f"--{part}-steps", type=int, default=steps, metavar="N", help=f"({steps})"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing release")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.errors import UserError
    from vasa_jax.core.types import FPS
    from vasa_jax.data.records import Records, shards
    from vasa_jax.provenance.consent import checked_consent
    from vasa_jax.train.finetune import FinetuneConfig

    consent = checked_consent(args.consent)
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output} exists already; choose another, or --overwrite")
    for part in ("face", "motion", "student"):
        if getattr(args, f"{part}_steps") < 0:
            raise UserError(f"--{part}-steps must be 0 or more")
    found = Records(shards(args.clips))
    clips = found.kinds == "clip"
    if not clips.any():
        raise UserError(f"{args.clips} holds no clips; make some with vasa-jax prepare")
    people = sorted(set(found.people[clips].tolist()))
    if len(people) > 1:
        raise UserError(
            f"the clips show {len(people)} people ({', '.join(people[:3])} ...); this recipe is for"
            " one: prepare their videos alone, or join them with --identities"
        )
    cfg = FinetuneConfig(
        face_steps=args.face_steps, motion_steps=args.motion_steps, student_steps=args.student_steps
    )
    base = load_release(args.base)
    work = args.workdir or args.output.with_name(args.output.name + ".runs")
    runs = _train(args, cfg, base, work)
    if runs is None:
        return 130
    seconds = found.frames[clips].sum() / FPS
    return _build(args, work, runs, consent, people[0], seconds)


def _train(args: argparse.Namespace, cfg: Any, base: Any, work: Path) -> dict[str, Path] | None:
    """Run folders by part; None when it was interrupted, which the loop has told."""
    from vasa_jax.cli.progress import Progress
    from vasa_jax.prepare.encode import encode_folder, encoder_of
    from vasa_jax.train import finetune

    runs: dict[str, Path] = {}
    if cfg.face_steps:
        run = finetune.face_run(cfg, base, args.base, args.clips)
        if not _run(run, work / "face"):
            return None
        runs["face"] = work / "face"
    if not cfg.motion_steps:
        return runs
    progress = Progress(left=True)
    try:
        encode_folder(
            encoder_of(args.base, args.clips, args.encoder), args.clips, work / "motions",
            say=lambda done, total: progress("motions", done, total),
        )  # fmt: skip
    finally:
        progress.close()
    motions = (work / "motions").absolute()
    if not _run(finetune.motion_run(cfg, base, args.base, motions), work / "motion"):
        return None
    runs["motion"] = work / "motion"
    if cfg.student_steps and "student" in base.config:
        student = finetune.student_run(cfg, base, args.base, motions, work / "motion")
        if not _run(student, work / "student"):
            return None
        runs["student"] = work / "student"
    return runs


def _run(config: Any, workdir: Path) -> bool:
    """Train, or go on, or find it done; whether it came to its end."""
    from vasa_jax.core.config import to_json
    from vasa_jax.train import loop

    print(f"{workdir}: {config.optim.steps} steps", flush=True)
    outcome = loop.run(
        config.task(), workdir, steps=config.optim.steps, loop=config.loop, seed=config.seed,
        config=to_json(config),
    )  # fmt: skip
    return outcome.reason != "interrupted"


def _build(
    args: argparse.Namespace, work: Path, runs: dict[str, Path], consent: str, person: str,
    seconds: float,
) -> int:  # fmt: skip
    """The release, by the verb that makes releases, with a card that keeps the consent."""
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.cli.main import main
    from vasa_jax.io.atomic import replacing

    steps = ", ".join(f"{part} {getattr(args, f'{part}_steps')} steps" for part in runs)
    with replacing(work / "card.md") as part:
        part.write_text(
            f"# {args.output.name}\n\nThe release {args.base}, trained on with {seconds / 60:.1f} "
            f"minutes of video of one person, {person!r}: {steps}. It is that person's: animate "
            f"nobody else with it.\n\n## Consent\n\n{consent}\n\n## The base release, {args.base}"
            f"\n\n{load_release(args.base).card}",
            encoding="utf-8",
        )  # fmt: skip
    argv = ["release", "build", "--base", args.base, "-o", str(args.output)]
    for name, folder in runs.items():
        argv += [f"--{name}", str(folder)]
    argv += ["--card", str(work / "card.md"), "--float16", "face", "motion", "head"]
    argv += ["student"] if "student" in runs or "motion" not in runs else []
    argv += ["--overwrite"] if args.overwrite else []
    return main(argv)
