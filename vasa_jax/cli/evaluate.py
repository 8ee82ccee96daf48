"""``vasa-jax evaluate``: measure talking faces, ours or anybody's, beside real people."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")
GAZES_DEG = ((-20.0, 0.0), (-10.0, 0.0), (10.0, 0.0), (20.0, 0.0), (0.0, -10.0), (0.0, 10.0))
DISTANCES = (0.8, 0.9, 1.1, 1.25)
CONTROLS = ("gaze", "distance", "emotion")


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
        "--only", choices=CONTROLS, action="append", help="only this control; may be repeated"
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


def _files(path: str, endings: Sequence[str], what: str) -> list[Path]:
    """The files of a folder with one of the endings, or the one file; sorted."""
    from vasa_jax.core.errors import UserError
    from vasa_jax.runtime.places import typed

    root = typed(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"no such folder or {what} file: {root}")
    found = sorted(p for p in root.iterdir() if p.suffix.lower() in endings)
    if not found:
        raise UserError(f"{root} holds no {what} file ({', '.join(endings)})")
    return found


def _say(i: int, n: int, name: str, clip: dict[str, Any], began: float) -> None:
    parts = [f"[{i + 1}/{n}] {name}: sync {clip['correlation']:.2f} at {clip['lag_frames']:+.0f}"]
    if clip.get("num_closures"):
        parts.append(f"closures {clip['closures']:.2f} (chance {clip['closures_chance']:.2f})")
    if "identity_mobileface" in clip:
        parts.append(f"identity {clip['identity_mobileface']:.2f}")
    parts.append(f"{clip['frames']} frames in {time.perf_counter() - began:.0f} s")
    print(", ".join(parts), flush=True)


def _finish(args: argparse.Namespace, clips: list[dict[str, Any]], about: dict[str, Any]) -> None:
    from vasa_jax.evaluate import suite

    summary = suite.summarise(clips)
    print(f"\n{len(clips)} clips, {sum(c['seconds'] for c in clips):.0f} s\n")
    print(suite.table(summary))
    if args.json:
        _write_json(args.json, {"about": about, "summary": summary, "clips": clips})


def _write_json(path: str | Path, value: Any) -> None:
    from vasa_jax.evaluate import suite
    from vasa_jax.io.atomic import replacing

    with replacing(path) as part:
        part.write_text(json.dumps(suite.plain(value), indent=1, allow_nan=False) + "\n")


def _video(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.evaluate import suite
    from vasa_jax.io.audio import to_speech
    from vasa_jax.io.video import read_video, read_video_audio
    from vasa_jax.metrics import phonemes

    files = [Path(f) for f in args.files]
    portrait = _portrait(Path(args.portrait)) if args.portrait else None
    sounds = [to_speech(*read_video_audio(f)) for f in files]
    spoken = [phonemes.recognise(sound) for sound in sounds]
    clips = []
    for i, file in enumerate(files):
        began = time.perf_counter()
        clip = suite.measure_clip(
            read_video(file), spoken[i], samples=sounds[i], portrait=portrait,
            others=spoken[i + 1 :] + spoken[:i], judges=judges, align_sound=args.align,
        )  # fmt: skip
        clips.append({"name": file.stem, **clip})
        _say(i, len(files), file.stem, clip, began)
        if args.sheets:
            _sheet(Path(args.sheets) / f"{file.stem}.png", read_video(file), file.stem)
    _finish(args, clips, {"command": "evaluate video", "align": args.align})
    if args.reference:
        known = suite.reference()
        known.setdefault("people", {})[args.reference] = suite.summarise(clips)
        _write_json(suite.REFERENCE_FILE, known)
    return 0


def _portrait(path: Path) -> Any:
    """A photograph with its largest face."""
    from vasa_jax.core.errors import UserError
    from vasa_jax.evaluate.suite import Portrait
    from vasa_jax.face.find.finder import FaceFinder
    from vasa_jax.io.image import read_image

    image = read_image(path)
    faces = FaceFinder().find(image)
    if not faces:
        raise UserError(f"no face found in {path}; give a picture with a visible face")
    return Portrait(image, faces[0].landmarks)


def _identity(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.core.errors import UserError
    from vasa_jax.evaluate import suite
    from vasa_jax.face.find.finder import FaceTracker
    from vasa_jax.io.video import read_video
    from vasa_jax.metrics import identity

    people = []
    for path in _files(args.portraits, IMAGES, "image"):
        try:
            people.append(_portrait(path))
        except UserError as error:
            print(f"left out: {error}")
    seen: list[list[Any]] = []
    for file in args.files:
        tracker, shots = FaceTracker(), []
        for i, frame in enumerate(read_video(file)):
            if i % 25 == 0 and (face := tracker.track(frame)) is not None:
                shots.append(suite.Portrait(frame, face.landmarks))
        seen.append(shots[:20])
    result = {}
    for name in judges:
        embed = identity.load_judge(name)
        codes = embed([p.image for p in people], [p.landmarks for p in people])
        different = (codes @ codes.T)[np.triu_indices(len(codes), 1)]
        same = []
        for shots in seen:
            own = embed([s.image for s in shots], [s.landmarks for s in shots])
            same.extend((own @ own[0])[1:])
        threshold, wrong = identity.equal_error_threshold(np.array(same), different)
        result[name] = {
            "same": float(np.mean(same)),
            "same_5": float(np.percentile(same, 5)),
            "different": float(different.mean()),
            "different_95": float(np.percentile(different, 95)),
            "threshold": threshold,
            "error": wrong,
            "pairs": [len(same), len(different)],
        }
        r = result[name]
        print(
            f"{name}: same person {r['same']:.3f} (5 % below {r['same_5']:.3f}), different people "
            f"{r['different']:.3f} (5 % above {r['different_95']:.3f}), threshold {threshold:.3f} "
            f"with {100 * wrong:.1f} % errors; {len(same)} and {len(different)} pairs"
        )
    if args.json:
        _write_json(args.json, result)
    if args.reference:
        _write_json(suite.REFERENCE_FILE, {**suite.reference(), "identity": result})
    return 0


def _sheet(
    path: Path, frames: Iterator[np.ndarray], label: str, *, pictures: int = 10, every: int = 8
) -> None:
    """A row of a clip's frames."""
    from vasa_jax.io.image import contact_sheet, write_image

    row = []
    for i, frame in enumerate(frames):
        if i % every == 0:
            row.append(frame)
        if len(row) == pictures:
            break
    write_image(path, contact_sheet([row], [label]))


def _pairs(
    portraits: Sequence[Path], speeches: Sequence[Path], count: int
) -> list[tuple[Path, Path]]:
    """``count`` different pairs that use every portrait and every voice as evenly as possible."""
    pairs = []
    for i in range(min(count, len(portraits) * len(speeches))):
        # After each round of the longer list the other one is shifted, so that pairs stay new.
        turn = i // np.lcm(len(portraits), len(speeches))
        pairs.append((portraits[i % len(portraits)], speeches[(i + turn) % len(speeches)]))
    return pairs


def _talk(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.errors import UserError
    from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
    from vasa_jax.evaluate import suite
    from vasa_jax.generate.talker import Talker
    from vasa_jax.io.audio import read_audio
    from vasa_jax.io.video import VideoWriter
    from vasa_jax.metrics import phonemes

    release = load_release(args.release)
    portraits = _files(args.portraits, IMAGES, "image")
    speeches = _files(args.speech, SOUNDS, "sound")
    samples = {p: read_audio(p)[: round(args.seconds * SAMPLE_RATE_HZ)] for p in speeches}
    spoken = {p: phonemes.recognise(samples[p]) for p in speeches}
    clips: list[dict[str, Any]] = []
    refused = []
    pairs = _pairs(portraits, speeches, args.pairs)
    for i, (picture, voice) in enumerate(pairs):
        began = time.perf_counter()
        name = f"{picture.stem}_{voice.stem}"
        try:
            talker = Talker(release, picture)
        except UserError as error:
            print(f"[{i + 1}/{len(pairs)}] left out: {error}", flush=True)
            refused.append(picture.name)
            continue
        frames = list(
            talker.generate(
                samples[voice], seed=args.seed + i, sampler=args.sampler, steps=args.steps,
                frame="crop", mark=False,  # the pictures are measured, and nobody sees them
            )
        )  # fmt: skip
        others = [spoken[p] for p in speeches if p != voice]
        clip = suite.measure_clip(
            frames, spoken[voice], samples=samples[voice], others=others, judges=judges,
            portrait=suite.Portrait(talker.image, talker.face.landmarks),
        )  # fmt: skip
        clips.append({"name": name, **clip, "render": talker.report()["ms_per_frame"]})
        _say(i, len(pairs), name, clip, began)
        if args.keep:
            target = Path(args.keep) / f"{name}.mp4"
            sound = (samples[voice], SAMPLE_RATE_HZ)
            with VideoWriter(target, size=talker.frame_size("crop"), audio=sound) as writer:
                for frame in frames:
                    writer.write(frame)
        if args.sheets:
            _sheet(Path(args.sheets) / f"{name}.png", iter(frames), name, every=FPS // 2)
    if not clips:
        raise UserError(f"no face found in any picture of {args.portraits}")
    about = {
        "command": "evaluate talk",
        "release": release.name,
        "release_sha256": release.sha256,
        "seed": args.seed,
        "seconds": args.seconds,
        "refused": refused,
    }
    _finish(args, clips, about)
    return 0


def _controls(args: argparse.Namespace, judges: tuple[str, ...]) -> int:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.errors import UserError
    from vasa_jax.core.types import EMOTIONS, SAMPLE_RATE_HZ
    from vasa_jax.evaluate import controls
    from vasa_jax.generate.controls import controls as asked_for
    from vasa_jax.generate.talker import Talker
    from vasa_jax.io.audio import read_audio
    from vasa_jax.metrics import identity

    release = load_release(args.release)
    speech = read_audio(args.speech)[: round(args.seconds * SAMPLE_RATE_HZ)]
    values: dict[str, Sequence[Any]] = {
        "gaze": GAZES_DEG, "distance": DISTANCES, "emotion": [e for e in EMOTIONS if e != "neutral"]
    }  # fmt: skip
    kinds = args.only or CONTROLS
    asked = [("neutral", None), *((kind, value) for kind in kinds for value in values[kind])]
    rows: list[dict[str, Any]] = []
    sheets: dict[str, list[list[np.ndarray]]] = {kind: [] for kind in kinds}
    sheets["blink"] = []
    people = 0
    for picture in _files(args.portraits, IMAGES, "image"):
        if people == args.most:
            break
        try:
            talker = Talker(release, picture)
        except UserError as error:
            print(f"left out: {error}")
            continue
        people += 1
        embed = identity.load_judge(judges[0]) if judges else None
        own = embed([talker.image], [talker.face.landmarks])[0] if embed else None
        shown: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        base: controls.Look | None = None
        for kind, value in asked:
            wanted: dict[str, Any] = {"gaze": [0.0, 0.0], "distance": 1.0}
            if kind == "emotion":
                wanted = {"emotion": {value: 1.0}}
            elif kind != "neutral":
                wanted[kind] = list(value) if kind == "gaze" else value
            elif kind == "neutral":
                wanted["emotion"] = {"neutral": 1.0}
            frames = list(
                talker.generate(
                    speech, controls=asked_for(**wanted), seed=args.seed, sampler=args.sampler,
                    steps=args.steps, frame="crop", mark=False,
                )
            )  # fmt: skip
            look = controls.look(frames)
            if base is None:
                base = look
                sheets["blink"].append(controls.blink_frames(frames, look))
                for pictures in shown.values():
                    pictures.append(frames[look.typical])
                continue
            row = {"portrait": picture.stem, "kind": kind, "asked": value, "found": look.found}
            row.update(controls.judge(kind, value, look, base))
            if embed is not None and own is not None and look.found:
                middle = frames[look.typical]
                row["identity"] = float(embed([middle], [look.landmarks[look.typical]])[0] @ own)
            rows.append(row)
            shown[kind].append(frames[look.typical])
            print(f"{picture.stem}: {controls.line(row)}", flush=True)
        for kind, pictures in shown.items():
            sheets[kind].append(pictures)
    if not rows:
        raise UserError(f"no face found in any picture of {args.portraits}")
    print("\n" + controls.table(rows))
    about = {"command": "evaluate controls", "release": release.name,
             "release_sha256": release.sha256, "seed": args.seed}  # fmt: skip
    if args.json:
        _write_json(args.json, {"about": about, "summary": controls.summarise(rows), "rows": rows})
    if args.sheets:
        names = {
            "gaze": ["neutral", *(f"{y:+.0f}, {p:+.0f} deg" for y, p in GAZES_DEG)],
            "distance": ["1.0", *map(str, DISTANCES)],
            "emotion": ["neutral", *(e for e in EMOTIONS if e != "neutral")],
            "blink": [],
        }
        _control_sheets(Path(args.sheets), sheets, names)
    return 0


def _control_sheets(
    folder: Path, sheets: dict[str, list[list[np.ndarray]]], columns: dict[str, list[str]]
) -> None:
    from vasa_jax.io.image import contact_sheet, write_image

    for kind, rows in sheets.items():
        if any(rows):
            sheet = contact_sheet([r for r in rows if r], columns=columns[kind])
            write_image(folder / f"{kind}.png", sheet)
            print(f"{folder / f'{kind}.png'}")
