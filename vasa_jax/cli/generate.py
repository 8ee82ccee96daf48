"""``vasa-jax generate``: a portrait and speech in, a talking face out."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.cli.progress import Progress
from vasa_jax.core.errors import InputWarning, UserError
from vasa_jax.core.types import FPS
from vasa_jax.generate import controls as asked

EPILOG = f"""\
controls over time, --controls FILE.json:
{asked.FORMAT}
The options --gaze, --distance and --emotion win over the file.

emotions: happy sad angry surprised fearful disgusted contempt neutral; strengths 0 to 1

examples:
  vasa-jax generate --example -o out.mp4
  vasa-jax generate portrait.jpg speech.wav -o out.mp4
  vasa-jax generate portrait.jpg speech.wav -o out.mp4 --gaze 20,0 --emotion happy=0.7
  vasa-jax generate group.jpg speech.mp3 -o out.mp4 --face 1 --distance 0.8 --json
"""

SHEET_COLUMNS, SHEET_ROWS, SHEET_CELL = 6, 3, 256
PREVIEW_SECONDS, PREVIEW_EVERY = 10, 2  # of the video; frames of it that one is kept of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    # argparse would take "-20,5" for an option; ours all begin with a letter.
    parser._negative_number_matcher = re.compile(r"-[\d.]")
    parser.add_argument(
        "portrait", metavar="PORTRAIT", nargs="?", help="any common image with a face"
    )
    parser.add_argument("speech", metavar="SPEECH", nargs="?", help="any common sound file")
    parser.add_argument(
        "--example", action="store_true", help="take the bundled portrait or speech if not given"
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT.mp4", help="video to write")
    parser.add_argument(
        "--gaze",
        metavar="YAW,PITCH",
        help="degrees; positive yaw towards the right edge of the picture, positive pitch up",
    )
    parser.add_argument(
        "--distance", metavar="R", help="ratio to the portrait's own; 0.8 is nearer (0.6 to 1.6)"
    )
    parser.add_argument(
        "--emotion", nargs="+", action="extend", metavar="NAME=STRENGTH", help="as in happy=0.8"
    )
    parser.add_argument("--controls", metavar="FILE.json", help="the same as tracks over time")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the motion (0); the same seed on the same machine gives the same frames, but for "
        "the invisible mark in them, which says the minute",
    )  # fmt: skip
    parser.add_argument("--sampler", metavar="NAME", help="of the diffusion (the release's own)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the sampler (the release's own)")
    parser.add_argument("--guidance", metavar="audio=0.5,gaze=1.0", help="scale per condition")
    parser.add_argument("--release", default="lite", metavar="NAME|DIR", help="weights (lite)")
    parser.add_argument(
        "--frame",
        choices=("full", "crop"),
        default="full",
        help="the whole picture with the head put back, or the model's square (full)",
    )
    parser.add_argument(
        "--face", type=int, metavar="N", help="which face when there are several; 0 is the largest"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse what would only be warned of: a covered mouth, a side view, a dark picture",
    )
    parser.add_argument("--sheet", metavar="PNG", help="also write a contact sheet of the video")
    parser.add_argument(
        "--preview",
        metavar="FILE.webp",
        help="also write the head, small and animated (.webp or .gif): "
        f"the first {PREVIEW_SECONDS} seconds",
    )
    parser.add_argument(
        "--consent", metavar="TEXT", help="who allowed this portrait; kept in the signed manifest"
    )
    parser.add_argument(
        "--certificate",
        metavar="PEM",
        help="to sign with, and its chain (one made on this machine)",
    )
    parser.add_argument("--key", metavar="PEM", help="of --certificate")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Writes the video; everything that can be refused is refused before the work begins."""
    began = time.perf_counter()
    _complete(args)
    _check_target(args.output, (".mp4",))
    if args.sheet:
        _check_target(args.sheet, (".png", ".jpg", ".jpeg", ".webp"))
    if args.preview:
        _check_target(args.preview, (".webp", ".gif"))
    _check_different(args)
    controls = _controls(args)
    guidance = _guidance(args)
    if args.steps is not None and not 1 <= args.steps <= 1000:
        raise UserError(f"--steps: {args.steps} is outside 1 to 1000")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed: {args.seed} is outside 0 to {2**32 - 1}")
    from vasa_jax.cli.signing import Signing
    from vasa_jax.provenance.consent import checked_consent
    from vasa_jax.runtime import programs

    consent = None if args.consent is None else checked_consent(args.consent)
    signing = Signing(args.certificate, args.key)
    programs.prefetch("generate")

    from vasa_jax.io.animation import write_animation
    from vasa_jax.io.audio import read_original, to_speech
    from vasa_jax.io.encoder_thread import EncoderThread
    from vasa_jax.io.image import contact_sheet, write_image
    from vasa_jax.io.video import VideoWriter

    samples, rate = read_original(args.speech)
    speech = to_speech(samples, rate)

    # JAX loads from here on; a wrong file name should not have to wait for it.
    from vasa_jax.generate.rolling import SAMPLERS
    from vasa_jax.generate.talker import Talker

    if args.sampler is not None and args.sampler not in SAMPLERS:
        raise UserError(
            f"--sampler: no sampler {args.sampler!r}{asked.near(args.sampler, tuple(SAMPLERS))}"
        )
    progress = Progress()
    progress.say(f"portrait {args.portrait}")
    if args.strict and args.warnings:  # of the sound
        raise UserError("; ".join(args.warnings))
    talker = Talker(args.release, args.portrait, face=args.face or 0, strict=args.strict)
    _tell_of_faces(talker, args.face, progress)
    _tell_of_flaws(talker, args.portrait)
    frames = talker.generate(
        speech,
        controls=controls,
        seed=args.seed,
        sampler=args.sampler,
        steps=args.steps,
        guidance=guidance,
        frame=args.frame,
        progress=progress,
    )
    total = -(-len(speech) // 640)
    wanted = _sheet_frames(total) if args.sheet else {}
    shown = range(0, PREVIEW_SECONDS * FPS if args.preview else 0, PREVIEW_EVERY)
    kept: dict[int, np.ndarray] = {}
    preview: list[np.ndarray] = []
    around = _head_part(talker) if args.frame == "full" else None
    with (
        VideoWriter(
            args.output, size=talker.frame_size(args.frame), audio=(samples, rate)
        ) as writer,
        EncoderThread(writer) as encoder,
    ):
        for index, frame in enumerate(frames):
            encoder.put(frame)
            if index == 0:
                programs.remember("generate")
            if index in wanted or index in shown:
                small = _thumbnail(frame, around)
                if index in wanted:
                    kept[index] = small
                if index in shown:
                    preview.append(small)
        encoder.finish()
        encoded_size = list(writer.encoded_size)
    report = talker.report()
    outputs = [args.output]
    if args.sheet:
        write_image(args.sheet, _marked([contact_sheet(*_rows(kept), cell=SHEET_CELL)], talker)[0])
        outputs.append(args.sheet)
    if args.preview:
        write_animation(args.preview, _marked(preview, talker), fps=FPS / PREVIEW_EVERY)
        outputs.append(args.preview)
    signed, problem = signing.sign(outputs, release=talker.release, consent=consent,
                                   mark=report["mark"], settings=_settings(args))  # fmt: skip
    report["size"] = encoded_size
    report["ms_per_frame"]["encode"] = round(encoder.seconds * 1e3 / max(report["frames"], 1), 3)
    report["seconds"] = round(time.perf_counter() - began, 3)
    report["out"] = args.output
    if args.sheet:
        report["sheet"] = args.sheet
    if args.preview:
        report["preview"] = args.preview
    report["manifest"] = {"signed": signed, "problem": problem}
    report["warnings"] = args.warnings
    progress.close()
    if problem:
        progress.say(
            f"not signed: {problem}. The video is complete and carries the invisible mark."
        )
    if args.json:
        print(json.dumps(report))
    else:
        ms = ", ".join(f"{name} {value:.1f}" for name, value in report["ms_per_frame"].items())
        print(
            f"{args.output}: {report['frames']} frames, {encoded_size[0]}x{encoded_size[1]}, "
            f"{report['seconds']:.1f} s ({ms} ms per frame)"
        )
    return 0


def _complete(args: argparse.Namespace) -> None:
    """Portrait and speech, as given or the bundled ones. Raises UserError when one is missing."""
    import vasa_jax

    if args.example:
        args.portrait = args.portrait or str(vasa_jax.example_portrait())
        args.speech = args.speech or str(vasa_jax.example_speech())
    if args.portrait is None or args.speech is None:
        missing = "PORTRAIT and SPEECH are" if args.portrait is None else "SPEECH is"
        raise UserError(f"{missing} missing; give them, or --example for the bundled ones")


def _controls(args: argparse.Namespace) -> asked.ControlTracks:
    distance = None
    if args.distance is not None:
        try:
            distance = float(args.distance)
        except ValueError:
            raise UserError(
                f"--distance wants a number, as in 0.8; got {args.distance!r}"
            ) from None
    here = asked.controls(
        gaze=None if args.gaze is None else asked.parse_gaze(args.gaze),
        distance=distance,
        emotion=asked.parse_emotions(args.emotion or ()),
    )
    return here.over(asked.read_controls(args.controls)) if args.controls else here


def _guidance(args: argparse.Namespace) -> dict[str, float] | None:
    if args.guidance is None:
        return None
    return asked.parse_guidance(args.guidance)


def _check_target(name: str, suffixes: tuple[str, ...]) -> None:
    """Refuses a file that could not be written, before any work is done for it."""
    path = Path(name)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"can't write {name}: its name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"can't write {name}: it is a folder")
    if not path.parent.is_dir():
        raise UserError(f"can't write {name}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"can't write {name}: no permission to write in {path.parent}")


def _check_different(args: argparse.Namespace) -> None:
    """Refuses two outputs in one file."""
    named = [("-o", args.output), ("--sheet", args.sheet), ("--preview", args.preview)]
    seen: dict[str, str] = {}
    for option, name in named:
        if name and (other := seen.setdefault(os.path.realpath(name), option)) != option:
            raise UserError(f"{option} and {other} name the same file")


def _tell_of_faces(talker: Any, chosen: int | None, progress: Progress) -> None:
    count = len(talker.faces)
    if count < 2:
        return
    x0, y0, x1, y1 = (round(v) for v in talker.face.box)
    which = "the largest" if chosen is None else f"number {chosen}"
    progress.say(f"{count} faces: using {which}, at {x0},{y0} to {x1},{y1}; --face N chooses")


def _tell_of_flaws(talker: Any, portrait: str) -> None:
    for text in talker.warnings:
        warnings.warn(f"{portrait}: {text}", InputWarning, stacklevel=2)


def _sheet_frames(total: int) -> dict[int, None]:
    """Indices of the frames on the sheet, evenly over the video."""
    count = min(total, SHEET_COLUMNS * SHEET_ROWS)
    return dict.fromkeys(np.linspace(0, total - 1, count).round().astype(int).tolist())


def _marked(pictures: Sequence[np.ndarray], talker: Any) -> list[np.ndarray]:
    """Pictures of frames, all of one size, with a mark: their own became too small to be found."""
    from vasa_jax.provenance.payload import Payload
    from vasa_jax.provenance.watermark import Marker

    marker = Marker(Payload.of(talker.release.sha256), *pictures[0].shape[:2])
    return [marker(picture) for picture in pictures]


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the manifest says of how the video was asked for; no names of files."""
    names = ("seed", "sampler", "steps", "guidance", "gaze", "distance", "emotion", "frame", "face")
    table = {name: getattr(args, name) for name in names}
    return {k: v for k, v in table.items() if v is not None} | {"controls": bool(args.controls)}


def _thumbnail(frame: np.ndarray, around: tuple[int, int, int, int] | None) -> np.ndarray:
    """A small copy of a frame, or of the part (x0 y0 x1 y1) of it where the head is."""
    from PIL import Image

    image = Image.fromarray(frame)
    image = image.crop(around) if around else image
    image.thumbnail((SHEET_CELL, SHEET_CELL), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _head_part(talker: Any) -> tuple[int, int, int, int]:
    """The head with some room, inside the picture."""
    width, height = talker.frame_size("full")
    reach = 0.65 * talker.crop.size
    x, y = talker.crop.cx, talker.crop.cy
    return (
        max(0, round(x - reach)),
        max(0, round(y - reach)),
        min(width, round(x + reach)),
        min(height, round(y + reach)),
    )


def _rows(kept: dict[int, np.ndarray]) -> tuple[list[list[np.ndarray]], list[str]]:
    """Rows of thumbnails and a label with the times of each."""
    indices = sorted(kept)
    rows, labels = [], []
    for start in range(0, len(indices), SHEET_COLUMNS):
        part = indices[start : start + SHEET_COLUMNS]
        rows.append([kept[i] for i in part])
        labels.append(f"{part[0] / 25:.2f} s to {part[-1] / 25:.2f} s")
    return rows, labels
