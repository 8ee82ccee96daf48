"""``vasa-jax evaluate``: measure talking faces, ours or anybody's, beside real people."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from vasa_jax.cli.files import IMAGES, SOUNDS, files_of, write_json

DESCRIPTION = """\
Measure talking faces: is a face found, is it the same person, do the lips follow the speech, do
eyes blink and head move, is the picture sharp and steady. Everything is printed beside the values
that real people reach by the same measure.

  talk      generate clips from portraits and speech, and measure them
  controls  ask for gaze, distance, emotion; measure whether it happens, draw contact sheets
  video     measure finished videos: recordings of people, other programs' output
  face      swap pose and dynamics between rendered people, compare with the rendered truth
  identity  calibrate the identity judges: same person against different people
"""

EXAMPLES = """\
examples:
  vasa-jax evaluate talk lite --portraits photos/ --speech voices/ --pairs 12 --json talk.json
  vasa-jax evaluate controls lite --portraits photos/ --speech voice.wav --sheets out/
  vasa-jax evaluate video clip1.mp4 clip2.mp4 --align --json clips.json
  vasa-jax evaluate face lite --head facekit.npz --json face.json --sheet face.png
"""

KINDS = ("gaze", "distance", "emotion")  # of controls


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    talk = verbs.add_parser("talk", help="generate clips and measure them")
    talk.add_argument("release", help="name or folder of a release")
    talk.add_argument("--portraits", metavar="DIR", required=True, help="folder or one image")
    talk.add_argument("--speech", metavar="DIR", required=True, help="folder or one sound file")
    talk.add_argument("--pairs", type=int, default=12, metavar="N", help="clips (default 12)")
    talk.add_argument("--seconds", type=float, default=10.0, help="of each clip (default 10)")
    talk.add_argument("--keep", metavar="DIR", help="keep the generated videos here")
    _generation(talk)
    _common(talk)

    controls = verbs.add_parser("controls", help="do gaze, distance and emotion obey?")
    controls.add_argument("release", help="name or folder of a release")
    controls.add_argument("--portraits", metavar="DIR", required=True, help="folder or one image")
    controls.add_argument("--speech", metavar="FILE", required=True, help="what is said meanwhile")
    controls.add_argument("--most", type=int, default=3, help="portraits (default 3)")
    controls.add_argument("--seconds", type=float, default=4.0, help="per control (default 4)")
    controls.add_argument(
        "--only", choices=KINDS, action="append", help="only this control; may be repeated"
    )
    _generation(controls)
    _common(controls)

    video = verbs.add_parser("video", help="measure finished videos")
    video.add_argument("files", nargs="+", metavar="FILE")
    video.add_argument("--portrait", metavar="FILE", help="compare identity with this picture")
    video.add_argument(
        "--align",
        action="store_true",
        help="look for closures at each file's own lag: for recordings whose sound is off",
    )
    video.add_argument("--reference", metavar="NAME", help="keep as the column 'real: NAME'")
    _common(video)

    from vasa_jax.cli import evaluate_face

    evaluate_face.add_arguments(verbs.add_parser("face", help="stage 1 against rendered truth"))

    who = verbs.add_parser("identity", help="calibrate the identity judges")
    who.add_argument("files", nargs="+", metavar="FILE", help="videos of one person each")
    who.add_argument("--portraits", metavar="DIR", required=True, help="different people")
    who.add_argument("--reference", action="store_true", help="keep the result in the package")
    _common(who)


def _generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--sampler", help="as in vasa-jax generate")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judges",
        default="mobileface,faceres",
        help="identity judges, of mobileface, faceres, dlib; empty for none",
    )
    parser.add_argument("--json", metavar="FILE", help="write every clip's values here")
    parser.add_argument("--sheets", metavar="DIR", help="write contact sheets here")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.core.errors import UserError

    judges = tuple(j for j in args.judges.split(",") if j)
    unknown = set(judges) - {"mobileface", "faceres", "dlib"}
    if unknown:
        raise UserError(f"no identity judge {sorted(unknown)[0]!r}; there are mobileface, "
                        "faceres, dlib")  # fmt: skip
    if args.what == "face":
        from vasa_jax.cli import evaluate_face

        return evaluate_face.run(args, judges)
    verbs = {"talk": _talk, "controls": _controls, "video": _video, "identity": _identity}
    return verbs[args.what](args, judges)


def _folder(path: str | None) -> Path | None:
    return None if path is None else Path(path)


class _Timed:
    """Says how a clip did, and how long it took since the one before."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, i: int, n: int, name: str, clip: dict[str, Any]) -> None:
        sync = f"sync {clip['correlation']:.2f} at {clip['lag_frames']:+.0f}"
        parts = [f"[{i + 1}/{n}] {name}: {sync}"]
        if clip.get("num_closures"):
            closures, chance = clip["closures"], clip["closures_chance"]
            parts.append(f"closures {closures:.2f} (chance {chance:.2f})")
        if "identity_mobileface" in clip:
            parts.append(f"identity {clip['identity_mobileface']:.2f}")
        now = time.perf_counter()
        parts.append(f"{clip['frames']} frames in {now - self._began:.0f} s")
        self._began = now
        print(", ".join(parts), flush=True)


def _finish(args: argparse.Namespace, clips: list[dict[str, Any]], about: dict[str, Any]) -> None:
    from vasa_jax.evaluate import suite

    summary = suite.summarise(clips)
    print(f"\n{len(clips)} clips, {sum(c['seconds'] for c in clips):.0f} s\n")
    print(suite.table(summary))
    if args.json:
        write_json(args.json, {"about": about, "summary": summary, "clips": clips})


def _video(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.evaluate import clips, suite

    portrait = clips.photograph(Path(args.portrait)) if args.portrait else None
    found = clips.videos(
        [Path(f) for f in args.files], portrait=portrait, align_sound=args.align, judges=judges,
        sheets=_folder(args.sheets), say=_Timed(),
    )  # fmt: skip
    _finish(args, found, {"command": "evaluate video", "align": args.align})
    if args.reference:
        known = suite.reference()
        known.setdefault("people", {})[args.reference] = suite.summarise(found)
        write_json(suite.REFERENCE_FILE, known)
    return 0


def _identity(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.core.errors import UserError
    from vasa_jax.evaluate import clips, suite
    from vasa_jax.evaluate.judges import calibrate, shots

    people = []
    for path in files_of(args.portraits, IMAGES, "image"):
        try:
            people.append(clips.photograph(path))
        except UserError as error:
            print(f"left out: {error}")
    seen = [shots(Path(file)) for file in args.files]
    result = {}
    for name in judges:
        result[name] = r = calibrate(name, people, seen)
        print(
            f"{name}: same person {r['same']:.3f} (5 % below {r['same_5']:.3f}), different people "
            f"{r['different']:.3f} (5 % above {r['different_95']:.3f}), threshold "
            f"{r['threshold']:.3f} with {100 * r['error']:.1f} % errors; {r['pairs'][0]} and "
            f"{r['pairs'][1]} pairs"
        )
    if args.json:
        write_json(args.json, result)
    if args.reference:
        write_json(suite.REFERENCE_FILE, {**suite.reference(), "identity": result})
    return 0


def _talk(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.errors import UserError
    from vasa_jax.evaluate import clips

    release = load_release(args.release)
    portraits = files_of(args.portraits, IMAGES, "image")
    speeches = files_of(args.speech, SOUNDS, "sound")
    refused = []

    def left_out(i: int, n: int, name: str, error: UserError) -> None:
        print(f"[{i + 1}/{n}] left out: {error}", flush=True)
        refused.append(name)

    found = clips.talk(
        release, clips.pairs(portraits, speeches, args.pairs), seconds=args.seconds,
        seed=args.seed, sampler=args.sampler, steps=args.steps, judges=judges,
        keep=_folder(args.keep), sheets=_folder(args.sheets), say=_Timed(), left_out=left_out,
    )  # fmt: skip
    if not found:
        raise UserError(f"no face found in any picture of {args.portraits}")
    about = {
        "command": "evaluate talk",
        "release": release.name,
        "release_sha256": release.sha256,
        "seed": args.seed,
        "seconds": args.seconds,
        "refused": refused,
    }
    _finish(args, found, about)
    return 0


def _controls(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.errors import UserError
    from vasa_jax.core.types import SAMPLE_RATE_HZ
    from vasa_jax.evaluate import controls, obedience
    from vasa_jax.io.audio import read_audio

    release = load_release(args.release)
    rows, sheets = obedience.ask(
        release, files_of(args.portraits, IMAGES, "image"),
        read_audio(args.speech)[: round(args.seconds * SAMPLE_RATE_HZ)],
        kinds=args.only or KINDS, most=args.most, seed=args.seed, sampler=args.sampler,
        steps=args.steps, judge=judges[0] if judges else None,
        say=lambda text: print(text, flush=True),
    )  # fmt: skip
    if not rows:
        raise UserError(f"no face found in any picture of {args.portraits}")
    print("\n" + controls.table(rows))
    about = {"command": "evaluate controls", "release": release.name,
             "release_sha256": release.sha256, "seed": args.seed}  # fmt: skip
    if args.json:
        write_json(args.json, {"about": about, "summary": controls.summarise(rows), "rows": rows})
    if args.sheets:
        for path in obedience.write_sheets(Path(args.sheets), sheets):
            print(path)
    return 0
