"""``vasa-jax synth``: render synthetic talking heads with their ground truth."""

from __future__ import annotations

import argparse
import os
import time

from vasa_jax.core.errors import UserError

DESCRIPTION = """\
Render talking clips of people who do not exist, with the truth of every frame: identity, pose,
expression, gaze, distance, emotion, landmarks, phonemes and visemes, camera and light.

OUT gets clips/NNNNNN/clip.mp4 and truth.npz, manifest.jsonl and contact_sheet.png. A clip depends
on --seed and its number alone. Finished clips are skipped, so the same command continues an
interrupted run, and a larger --clips adds to it.
"""

EXAMPLES = """\
examples:
  vasa-jax synth out/heads --clips 4
  vasa-jax synth /data/heads --clips 2000 --size 512 --head facekit.npz --workers 8
  vasa-jax synth out/happy --clips 8 --emotion happy=0.8 --language fr
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("out", metavar="OUT", help="folder for the clips")
    parser.add_argument("--clips", type=int, required=True, metavar="N", help="how many in all")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed, other clips"
    )
    parser.add_argument("--size", type=int, default=256, help="side in pixels, 256 or 512")
    parser.add_argument("--seconds", type=float, default=6.0, metavar="S", help="length of a clip")
    parser.add_argument(
        "--head",
        default=os.environ.get("VASA_FACEKIT"),
        metavar="FILE",
        help="facekit.npz (default: $VASA_FACEKIT; without it a simple built-in head)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that render (default 1)"
    )
    parser.add_argument("--language", metavar="NAME", help="en de fr es it cmn ...: all in one")
    parser.add_argument(
        "--emotion", metavar="NAME[=STRENGTH]", help="all with one emotion (default: drawn)"
    )
    parser.add_argument(
        "--masks", type=int, default=4, metavar="N", help="frames per clip with masks and depth"
    )


def run(args: argparse.Namespace) -> int:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from vasa_jax.synth import clips

    emotion, strength = _emotion(args.emotion)
    settings = clips.ClipSettings(
        seed=args.seed,
        seconds=args.seconds,
        size=args.size,
        head=os.path.abspath(args.head) if args.head else None,
        language=args.language,
        emotion=emotion,
        strength=strength,
        masks=args.masks,
    )
    began = time.perf_counter()
    rendered = 0
    with Progress(
        TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    ) as bar:  # fmt: skip
        task = bar.add_task("clips", total=args.clips, speed="")

        def done(line: dict) -> None:
            nonlocal rendered
            rendered += 0 if line["cached"] else line["frames"]
            speed = rendered / (time.perf_counter() - began)
            bar.update(task, advance=1, speed=f"{speed:.1f} frames/s" if rendered else "cached")

        lines = clips.render_clips(args.out, settings, args.clips, workers=args.workers, done=done)
    seconds = time.perf_counter() - began
    sheet = clips.contact_sheet(args.out, lines)
    skipped = sum(line["cached"] for line in lines)
    print(
        f"{len(lines)} clips in {args.out} ({skipped} were there already); {rendered} frames in "
        f"{seconds:.1f} s = {rendered / seconds:.1f} frames/s; {sheet}"
    )
    return 0


def _emotion(asked: str | None) -> tuple[str | None, float | None]:
    from vasa_jax.core.types import EMOTIONS

    if asked is None:
        return None, None
    name, _, value = asked.partition("=")
    if name not in EMOTIONS:
        raise UserError(f"no emotion is called '{name}'; choose one of {', '.join(EMOTIONS)}")
    try:
        strength = float(value) if value else 0.8
    except ValueError:
        raise UserError(f"--emotion {asked}: the strength must be a number from 0 to 1") from None
    if not 0 <= strength <= 1:
        raise UserError(f"--emotion {asked}: the strength must lie between 0 and 1")
    return name, strength
