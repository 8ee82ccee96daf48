"""Clips to measure: generated from portraits and voices, or finished videos of anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.checkpoint.release import Release
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.evaluate import suite
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.generate.talker import Talker
from vasa_jax.io.audio import read_audio, to_speech
from vasa_jax.io.image import contact_sheet, read_image, write_image
from vasa_jax.io.video import VideoWriter, read_video, read_video_audio
from vasa_jax.metrics import phonemes

Said = Callable[[int, int, str, dict[str, Any]], None]  # number, of how many, name, measures


def pairs(
    portraits: Sequence[Path], speeches: Sequence[Path], count: int
) -> list[tuple[Path, Path]]:
    """``count`` different pairs that use every portrait and every voice as evenly as possible."""
    out = []
    for i in range(min(count, len(portraits) * len(speeches))):
        # After each round of the longer list the other one is shifted, so that pairs stay new.
        turn = i // np.lcm(len(portraits), len(speeches))
        out.append((portraits[i % len(portraits)], speeches[(i + turn) % len(speeches)]))
    return out


def talk(
    release: Release,
    chosen: Sequence[tuple[Path, Path]],
    *,
    seconds: float,
    seed: int,
    sampler: str | None,
    steps: int | None,
    judges: Sequence[str],
    keep: Path | None,
    sheets: Path | None,
    say: Said,
    left_out: Callable[[int, int, str, UserError], None],
) -> list[dict[str, Any]]:
    """Measures of a clip for each pair of a portrait and a voice, as ``suite.measure_clip``.

    Portraits in which no face is found are passed to ``left_out``. ``keep`` and ``sheets`` are
    folders for the videos and for a row of pictures of each.
    """
    speeches = list(dict.fromkeys(voice for _, voice in chosen))
    samples = {p: read_audio(p)[: round(seconds * SAMPLE_RATE_HZ)] for p in speeches}
    spoken = {p: phonemes.recognise(samples[p]) for p in speeches}
    clips: list[dict[str, Any]] = []
    for i, (picture, voice) in enumerate(chosen):
        name = f"{picture.stem}_{voice.stem}"
        try:
            talker = Talker(release, picture)
        except UserError as error:
            left_out(i, len(chosen), picture.name, error)
            continue
        frames = list(
            talker.generate(
                samples[voice], seed=seed + i, sampler=sampler, steps=steps,
                frame="crop", mark=False,  # the pictures are measured, and nobody sees them
            )
        )  # fmt: skip
        others = [spoken[p] for p in speeches if p != voice]
        clip = suite.measure_clip(
            frames, spoken[voice], samples=samples[voice], others=others, judges=tuple(judges),
            portrait=suite.Portrait(talker.image, talker.face.landmarks),
        )  # fmt: skip
        clips.append({"name": name, **clip, "render": talker.report()["ms_per_frame"]})
        say(i, len(chosen), name, clip)
        if keep is not None:
            sound = (samples[voice], SAMPLE_RATE_HZ)
            size = talker.frame_size("crop")
            with VideoWriter(keep / f"{name}.mp4", size=size, audio=sound) as writer:
                for frame in frames:
                    writer.write(frame)
        if sheets is not None:
            sheet(sheets / f"{name}.png", iter(frames), name, every=FPS // 2)
    return clips


def videos(
    files: Sequence[Path],
    *,
    portrait: suite.Portrait | None,
    align_sound: bool,
    judges: Sequence[str],
    sheets: Path | None,
    say: Said,
) -> list[dict[str, Any]]:
    """Measures of finished videos; each other's sounds are what they must not follow."""
    sounds = [to_speech(*read_video_audio(f)) for f in files]
    spoken = [phonemes.recognise(sound) for sound in sounds]
    clips = []
    for i, file in enumerate(files):
        clip = suite.measure_clip(
            read_video(file), spoken[i], samples=sounds[i], portrait=portrait,
            others=spoken[i + 1 :] + spoken[:i], judges=tuple(judges), align_sound=align_sound,
        )  # fmt: skip
        clips.append({"name": file.stem, **clip})
        say(i, len(files), file.stem, clip)
        if sheets is not None:
            sheet(sheets / f"{file.stem}.png", read_video(file), file.stem)
    return clips


def photograph(path: Path) -> suite.Portrait:
    """A photograph with its largest face. Raises UserError where there is none."""
    image = read_image(path)
    faces = FaceFinder().find(image)
    if not faces:
        raise UserError(f"no face found in {path}; give a picture with a visible face")
    return suite.Portrait(image, faces[0].landmarks)


def sheet(
    path: Path, frames: Iterator[np.ndarray], label: str, *, pictures: int = 10, every: int = 8
) -> None:
    """Writes a row of a clip's frames."""
    row = []
    for i, frame in enumerate(frames):
        if i % every == 0:
            row.append(frame)
        if len(row) == pictures:
            break
    write_image(path, contact_sheet([row], [label]))
