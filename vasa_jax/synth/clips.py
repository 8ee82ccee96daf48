"""Talking clips of synthetic people: a seed becomes a recipe, a recipe a folder.

::

    OUT/settings.json            what was asked for; another setting needs another folder
    OUT/manifest.jsonl           one line per finished clip, in order
    OUT/contact_sheet.png
    OUT/clips/000000/clip.mp4    picture and sound, 25 fps
    OUT/clips/000000/truth.npz   see ``truth_arrays``

A clip is drawn from (seed, index) alone, so clips can be rendered in any order, by any number of
processes, or again. A clip's folder appears, by renaming, when it is complete; finished ones are
skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS, FPS, SAMPLE_RATE_HZ
from vasa_jax.runtime import unfinished
from vasa_jax.synth.performance import Performance, perform
from vasa_jax.synth.person.load_head import load_mesh_head
from vasa_jax.synth.person.mesh_head import CAMERA_CM, PIVOT_CM, MeshHead
from vasa_jax.synth.person.person import Person, background, make_person
from vasa_jax.synth.person.picture import SEGMENTS, render_still
from vasa_jax.synth.speech import text, voice
from vasa_jax.synth.speech.visemes import VISEME_NAMES
from vasa_jax.synth.speech.voice import Speech


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What all clips of a folder have in common."""

    seed: int = 0
    seconds: float = 6.0
    size: int = 256
    supersample: int = 2
    head: str | None = None  # facekit.npz; None is the built-in head
    language: str | None = None  # None draws one per clip
    emotion: str | None = None  # None draws
    strength: float | None = None
    masks: int = 0  # frames per clip that keep segments and depth


@dataclass(frozen=True)
class Recipe:
    """Who says what and how; everything but the pixels."""

    person: Person
    speech: Speech
    performance: Performance
    motion: np.ndarray  # (T, 54) absolute: the performance on top of the person's portrait pose


def draw_recipe(settings: ClipSettings, index: int, head: MeshHead) -> Recipe:
    """The recipe of clip ``index``; the same settings and index give the same recipe."""
    rng = np.random.default_rng([settings.seed, index, 0xC11B])
    person_seed, act_seed = (int(x) for x in rng.integers(0, 2**31, 2))
    speech = draw_speech(rng, settings.seconds, settings.language)
    person = make_person(person_seed, head, texture=768 if settings.size <= 256 else 1280)
    act = perform(speech, seed=act_seed, emotion=settings.emotion, strength=settings.strength)
    motion = act.motion.copy()
    motion[:, :3] += person.portrait_pose
    return Recipe(person, speech, act, motion)


def draw_speech(rng: np.random.Generator, seconds: float, language: str | None = None) -> Speech:
    """About ``seconds`` of somebody talking, exactly that long; now and then only silence."""
    speaker = voice.random_voice(rng, language)
    parts = [voice.silence(float(rng.uniform(0.1, 0.8)), speaker)]
    quiet = rng.uniform() < 0.03
    while not quiet and sum(p.duration_s for p in parts) < seconds:
        said = text.random_text(rng, speaker.language)
        parts.append(voice.speak(said, speaker, seed=int(rng.integers(2**31))))
        parts.append(
            voice.silence(float(rng.choice([0.1, 0.3, 1.0]) * rng.uniform(0.5, 1.5)), speaker)
        )
    if quiet:
        parts.append(voice.silence(seconds, speaker))
    return voice.cut(voice.join(parts), 0.0, seconds)


def truth_arrays(recipe: Recipe, truths: list, settings: ClipSettings) -> dict[str, Any]:
    """What is known of a clip, T frames.

    ``motion`` (T, 54) absolute, ``motion_relative`` (T, 54) to ``portrait_pose`` (3,);
    ``identity`` (I,); labels ``gaze`` (T, 2) rad without saccades, ``distance`` (T,), ``emotion``
    (T, 8); ``eye_in_head`` (T, 2); ``landmarks68`` (T, 68, 2) in [0, 1] of the picture,
    ``landmarks68_camera`` (T, 68, 3) cm; ``lip_gap_cm``, ``blink``, ``closure``, ``labiodental``,
    ``speaking`` (T,); ``viseme`` (T,) into ``viseme_names``; ``phonemes`` (P,) IPA and
    ``phoneme_times`` (P, 2) s; ``placement`` (3,) and ``frame_placement`` (T, 3), ``camera_cm``,
    ``pivot_cm`` (projection: ``mesh_head``); ``light`` (7, 3): key, its colour, fill, colour, rim,
    colour, ambient; with masks: ``mask_frames`` (K,), ``segments`` (K, size, size), ``depth``.
    """
    act, person = recipe.performance, recipe.person
    light = person.light
    out: dict[str, Any] = {
        "motion": recipe.motion,
        "motion_relative": act.motion,
        "portrait_pose": person.portrait_pose,
        "identity": person.identity,
        "person_seed": np.int64(person.seed),
        "gaze": act.controls.gaze,
        "distance": act.controls.distance,
        "emotion": act.controls.emotion,
        "eye_in_head": np.stack([t.eye_in_head for t in truths]),
        "landmarks68": np.stack([t.landmarks68 for t in truths]),
        "landmarks68_camera": np.stack([t.landmarks68_camera for t in truths]),
        "lip_gap_cm": np.array([t.lip_gap_cm for t in truths], np.float32),
        "blink": act.blink,
        "closure": act.closure,
        "labiodental": act.labiodental,
        "speaking": act.speaking,
        "viseme": act.viseme.astype(np.int16),
        "viseme_names": np.array(VISEME_NAMES),
        "phonemes": np.array([p.symbol for p in act.phonemes]),
        "phoneme_times": np.array([(p.start_s, p.end_s) for p in act.phonemes]),
        "placement": person.placement,
        "frame_placement": np.stack([t.placement for t in truths]),
        "camera_cm": np.float32(CAMERA_CM),
        "pivot_cm": PIVOT_CM,
        "light": np.stack(
            [
                light.key, light.key_rgb, light.fill, light.fill_rgb, light.rim, light.rim_rgb,
                light.ambient,
            ]
        ),
    }  # fmt: skip
    frames = mask_frames(len(truths), settings.masks)
    if len(frames):
        out["mask_frames"] = frames
        out["segments"] = np.stack([truths[i].segments for i in frames])
        out["segment_names"] = np.array(SEGMENTS)
        out["depth"] = np.stack([truths[i].depth for i in frames]).astype(np.float16)
    return out


def mask_frames(frames: int, wanted: int) -> np.ndarray:
    """Which frames keep their masks: ``wanted`` of them, evenly spread."""
    return np.unique(np.linspace(0, frames - 1, min(wanted, frames)).astype(int))


def render_clip(out: str | Path, settings: ClipSettings, index: int) -> dict:
    """Renders clip ``index`` into its folder unless it is there; returns its manifest line."""
    folder = Path(out) / "clips" / f"{index:06d}"
    info = folder / "info.json"
    if info.exists():
        return json.loads(info.read_text()) | {"cached": True}
    from vasa_jax.io.video import VideoWriter

    part = unfinished.name_for(folder)
    try:
        part.mkdir(parents=True)
        head = load_mesh_head(settings.head)
        recipe = draw_recipe(settings, index, head)
        side = settings.size
        backdrop = background(recipe.person.seed, side * settings.supersample)
        keep = set(mask_frames(len(recipe.motion), settings.masks).tolist())
        truths = []
        sound = (recipe.speech.samples, SAMPLE_RATE_HZ)
        with VideoWriter(part / "clip.mp4", size=(side, side), fps=FPS, audio=sound) as video:
            for i, motion in enumerate(recipe.motion):
                image, truth = render_still(
                    recipe.person,
                    motion,
                    head=head,
                    size=side,
                    supersample=settings.supersample,
                    backdrop=backdrop,
                )
                video.write(image)
                truths.append(truth if i in keep else truth.without_pixels())
        np.savez_compressed(part / "truth.npz", **truth_arrays(recipe, truths, settings))
        emotion = recipe.performance.controls.emotion.mean(0)
        line = {
            "index": index,
            "clip": f"clips/{folder.name}/clip.mp4",
            "truth": f"clips/{folder.name}/truth.npz",
            "frames": len(recipe.motion),
            "size": side,
            "person": recipe.person.seed,
            "voice": recipe.speech.voice.name,
            "language": recipe.speech.voice.language,
            "text": recipe.speech.text,
            "emotion": EMOTIONS[int(emotion.argmax())] if emotion.max() > 0.05 else "neutral",
        }
        (part / "info.json").write_text(json.dumps(line, ensure_ascii=False))
        part.rename(folder)
    except OSError as e:
        raise UserError(f"can't write {folder}: {e.strerror or e}") from e
    finally:
        unfinished.settled(part)
    return line | {"cached": False}


def render_clips(
    out: str | Path,
    settings: ClipSettings,
    count: int,
    *,
    workers: int = 1,
    done: Callable[[dict], None] = lambda line: None,
) -> list[dict]:
    """Renders clips 0..count-1, skipping finished ones; ``done`` hears of each.

    Raises:
      UserError: the folder holds clips of other settings, a bad setting, or no space.
    """
    if count < 1:
        raise UserError("ask for at least one clip")
    if not 0.5 <= settings.seconds <= 600:
        raise UserError("--seconds must lie between 0.5 and 600")
    if not 32 <= settings.size <= 2048 or settings.size % 2:
        raise UserError("--size must be an even number between 32 and 2048")
    load_mesh_head(settings.head)  # complain before any worker starts
    out = Path(out)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    _agree_on_settings(out / "settings.json", settings)
    lines: dict[int, dict] = {}
    if workers <= 1:
        for i in range(count):
            lines[i] = render_clip(out, settings, i)
            done(lines[i])
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        # spawned, because threads of JAX and numba do not survive a fork
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            jobs = {pool.submit(render_clip, out, settings, i): i for i in range(count)}
            try:
                for job in as_completed(jobs):
                    lines[jobs[job]] = job.result()
                    done(lines[jobs[job]])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    ordered = [{k: v for k, v in lines[i].items() if k != "cached"} for i in range(count)]
    _write(
        out / "manifest.jsonl", "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in ordered)
    )
    return [lines[i] for i in range(count)]


def contact_sheet(out: str | Path, lines: list[dict], rows: int = 8, columns: int = 6) -> Path:
    """Frames of the first clips, one clip a row, as OUT/contact_sheet.png."""
    from vasa_jax.io import image
    from vasa_jax.io.video import read_video

    out = Path(out)
    pictures, labels = [], []
    for line in lines[:rows]:
        wanted = set(np.linspace(2, line["frames"] - 3, columns).astype(int).tolist())
        pictures.append([f for i, f in enumerate(read_video(out / line["clip"])) if i in wanted])
        said = line["text"][:70] if line["text"].isascii() else ""  # the sheet's font is Latin
        labels.append(f"{line['index']}  {line['voice']}  {line['emotion']}  {said}")
    path = out / "contact_sheet.png"
    image.write_image(path, image.contact_sheet(pictures, labels, cell=160))
    return path


def _agree_on_settings(path: Path, settings: ClipSettings) -> None:
    mine = asdict(settings)
    if path.exists():
        theirs = json.loads(path.read_text())
        different = [k for k in mine if theirs.get(k) != mine[k]]
        if different:
            raise UserError(
                f"{path.parent} holds clips with other settings ({', '.join(different)}); "
                "name another folder or repeat the old settings"
            )
    _write(path, json.dumps(mine, indent=1))


def _write(path: Path, content: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(content)
    part.rename(path)
