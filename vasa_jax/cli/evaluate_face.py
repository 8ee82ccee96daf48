"""``vasa-jax evaluate face``: is stage 1 disentangled? Measured against truth."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Swap pose and dynamics (expression and gaze) between people who do not exist, and compare with the
picture that would be right: the rendering engine knows it. Beside the model stand copying the
source, moving it by geometry alone, and the model given the true parameters instead of what it
reads in the pictures.

  self      A in another of A's own states
  pose      A with the pose of B: expression, gaze and person must stay
  dynamics  A with the expression and gaze of B: pose and person must stay
  both      A with all that B does
  agree     the two ways to one picture, pose onto A and dynamics onto A, against each other
  real      clips of people: the first frame as source, later ones as drivers

Linear probes say what the codes give away about pose and person. People are drawn from seeds that
training never uses. With --json, an interrupted run continues where it was.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument("release", help="name or folder of a release")
    parser.add_argument("--identities", type=int, default=12, metavar="N", help="people (12)")
    parser.add_argument("--pairs", type=int, default=24, metavar="N", help="of A and B (24)")
    parser.add_argument(
        "--states", type=int, default=12, metavar="N", help="per person for the probes; 0: none"
    )
    parser.add_argument(
        "--source",
        choices=("any", "portrait"),
        default="any",
        help="source pictures: in any state, or level, mouth shut, looking at the camera",
    )
    parser.add_argument(
        "--head",
        default=os.environ.get("VASA_FACEKIT"),
        metavar="FILE",
        help="facekit.npz (default: $VASA_FACEKIT; '': a simple built-in head)",
    )
    parser.add_argument(
        "--faces",
        default=os.environ.get("VASA_FACES"),
        metavar="DIR",
        help="face files of training, to prove that nobody is in both (default: $VASA_FACES)",
    )
    media = os.path.join(os.environ.get("VASA_MEDIA", ""), "clips")
    parser.add_argument(
        "--clips",
        default=media if os.path.isdir(media) else "",
        metavar="DIR",
        help="real clips (default: $VASA_MEDIA/clips); '' for none",
    )
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="drivers per clip (6)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people and pairs")
    parser.add_argument(
        "--judges",
        default="mobileface,faceres",
        help="identity judges, of mobileface, faceres, dlib; empty for none",
    )
    parser.add_argument("--json", metavar="FILE", help="write all values here")
    parser.add_argument("--sheet", metavar="PNG", help="write a contact sheet of rendered people")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What parts of a run must have in common to be put together."""

    release: str  # its hash
    head: str  # "built-in", or the first numbers of the file's hash
    seed: int
    identities: int
    source: str
    judges: tuple[str, ...]


def run(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.cli.files import IMAGES, write_json
    from vasa_jax.core.errors import UserError
    from vasa_jax.evaluate import swaps as reenactment
    from vasa_jax.evaluate.faces import FaceRuns
    from vasa_jax.io.parts import Parts
    from vasa_jax.metrics import probes
    from vasa_jax.synth.person.load_head import load_mesh_head

    for name, least in (("identities", 2), ("pairs", 1), ("states", 0), ("frames", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be {least} or more, not {getattr(args, name)}")
    if args.sheet and not args.sheet.lower().endswith(IMAGES[:4]):
        raise UserError(f"--sheet {args.sheet}: name it .png, .jpg or .webp")
    args.head = args.head or None  # '' asks for the built-in head
    clips = _clips(args.clips)
    release = load_release(args.release)
    head = load_mesh_head(args.head)
    settings = Settings(
        release=release.sha256, head=_digest(args.head), seed=args.seed,
        identities=args.identities, source=args.source, judges=judges,
    )  # fmt: skip
    kept = Parts(Path(args.json) if args.json else None, dataclasses.asdict(settings))
    runs = FaceRuns(release, head, settings, kept, exact=args.head is not None)
    trained = _compare_with_training(args, runs)
    pairs, rows, examples = runs.everything(
        args.pairs, clips, args.frames, args.states, sheet=bool(args.sheet)
    )
    if not pairs:
        raise UserError("no face was found in any rendered source; the head model is no use here")

    summary = reenactment.summarise(pairs)
    made = runs.reenactor.methods
    columns = "copy: the source unchanged; model: from pictures"
    if "warp" in made:
        columns += "; warp: geometry alone"
    if "exact" in made and args.head is not None:
        columns += "; exact: model given the true parameters"
    print(f"\n{release.name}: {args.pairs} pairs of {args.identities} people, seed {args.seed}")
    print(f"{columns}; truth: the right picture as the annotators read it")
    print("against copy, against warp: of the model, paired; same: the 95 % interval holds zero\n")
    print(reenactment.table(summary))
    if rows:
        print("\n" + probes.table(rows))
        if "warp" in made:
            print(
                "\nz_dyn is computed from 45 expression weights and 2 gaze angles, and from "
                "nothing else:\npose and person can enter it only by what the fit of a picture "
                "gets wrong."
            )
        else:
            print("\nz_dyn is read from pixels; there is no geometry alone to compare with.")
    print("\n" + reenactment.findings(summary))
    if args.sheet:
        runs.write_sheet(args.sheet, examples)
    if args.json:
        about = {"command": "evaluate face", "release_name": release.name,
                 **dataclasses.asdict(settings), "pairs": args.pairs, "states": args.states,
                 "frames": args.frames, **trained,
                 "left_out": runs.left_out}  # fmt: skip
        write_json(
            args.json,
            {"about": about, "summary": summary, "probes": rows,
             "pairs": reenactment.columns(pairs)},
        )  # fmt: skip
        kept.finished()
    return 0


def _digest(path: str | None) -> str:
    """What tells head models apart; a file's place does not matter."""
    import hashlib

    if path is None:
        return "built-in"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _clips(folder: str) -> list[Path]:
    from vasa_jax.cli.files import files_of

    return files_of(folder, (".mp4", ".mov", ".webm", ".mkv"), "video") if folder else []


def _compare_with_training(args: argparse.Namespace, runs: Any) -> dict[str, Any]:
    """Says, and returns, how far the people are from those in training's face files."""
    from vasa_jax.synth.person import swaps

    if not args.faces or args.head is None:
        print("people are held out by their seeds; no face files to compare them with")
        return {}
    found = swaps.refuse_trained_people(runs.people, Path(args.faces))
    print(
        f"nobody is in the {found['files']} rendered face files of training: the nearest person "
        f"differs by {found['nearest_sigmas']:.1f} sigmas"
    )
    return {"trained": found}
