"""Clips of sound with the mouth that belongs to it, as landmarks show it: for ``metrics/sync_net``.

Real mouths come from videos of one talking person each, acted ones from motion shards
(``data/motions.py``): there every clip is spoken by another random person whose landmarks are those
of the head model, with a detector's errors. A clip is a ``MotionClip`` whose motion is
``mouth_curves``; shards, splits and windows are those of stage 2.

    python -m vasa_jax.prepare.sync_clips videos OUT --folder DIR
    python -m vasa_jax.prepare.sync_clips acted OUT --folder DIR
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import POSE, SAMPLES_PER_FRAME, Controls
from vasa_jax.data.faces import example_head
from vasa_jax.data.folders import (
    VIDEO_ENDINGS,
    LeftOut,
    beside,
    media_files,
    one_line_errors,
    person_of,
)
from vasa_jax.data.shards import MotionClip, motion_shards, read_shard, write_shard
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import landmark_head
from vasa_jax.face.head.head import Head
from vasa_jax.metrics.sync_net import CURVES, mouth_curves
from vasa_jax.prepare.videos import NO_FACE, found_enough, video_landmarks, video_sound

CLIPS_PER_SHARD = 50
IDENTITY_SIGMAS = 0.8
CROP_PX_PER_CM = 256 / 28.0
ERROR_PX = 0.35  # white, of the acted landmarks


def lip_clip(samples: np.ndarray, landmarks_TL3: np.ndarray) -> MotionClip:
    """Sound (mono, 16 kHz) and landmarks (T, 478, 3) in px of one person."""
    frames = min(len(landmarks_TL3), len(samples) // SAMPLES_PER_FRAME)
    return MotionClip(
        np.asarray(samples[: frames * SAMPLES_PER_FRAME], np.float32),
        mouth_curves(landmarks_TL3[:frames]), Controls.none(frames),
        np.full(frames, -1, np.int8), np.ones(CURVES, np.float32), True,
    )  # fmt: skip


def filmed_clips(
    files: list[Path], folder: Path, left_out: LeftOut, kept: Path | None = None
) -> Iterator[MotionClip]:
    """Of videos in which a face is found nearly always; ``kept`` keeps their landmarks."""
    for path in files:
        try:
            sound, landmarks = video_sound(path), video_landmarks(path, beside(path, folder, kept))
        except UserError as error:
            left_out.add(path, error)
            continue
        if found_enough(landmarks):
            yield lip_clip(sound, landmarks)._replace(person=person_of(path, folder))
        else:
            left_out.add(path, NO_FACE)


def acted_clips(shard: Path, seed: int) -> Iterator[MotionClip]:
    """Of the speaking clips of a motion shard, each with a person of its own."""
    lm_head = jax.tree.map(jnp.asarray, landmark_head(example_head()))
    rng = np.random.default_rng([seed, 0x11B5])
    for clip in read_shard(shard):
        if not clip.speech:
            continue
        identity = IDENTITY_SIGMAS * rng.standard_normal(lm_head.identity.shape[0])
        # Few lengths, few programs.
        frames = len(clip.motion)
        motion = np.pad(clip.motion, ((0, -frames % 256), (0, 0)), mode="edge")
        shown = np.asarray(_landmarks(lm_head, identity.astype(np.float32), motion))[:frames]
        wrong = ERROR_PX * rng.standard_normal(shown.shape)
        yield lip_clip(clip.samples.astype(np.float32) / 32767, shown + wrong)


@functools.partial(jax.jit)
def _landmarks(lm_head: Head, identity_I: jax.Array, motion_TM: jax.Array) -> jax.Array:
    """(T, 478, 3) px of a person's moving head."""
    with jax.numpy_rank_promotion("allow"):
        own, centers = heads.person(lm_head, identity_I)

        def frame(motion: jax.Array) -> jax.Array:
            turn = heads.rotation(*motion[POSE][:3])
            moved = heads.deform(lm_head, own, centers, motion[EXPRESSION], jnp.zeros(2))
            placed = heads.place(moved, turn, jnp.array([0.0, 0.0, 1.0]))
            return CROP_PX_PER_CM * placed

        return jax.vmap(frame)(motion_TM)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description="Make shards of mouths and sound.")
    parser.add_argument("source", choices=("videos", "acted"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="of videos, or motion shards")
    parser.add_argument("--landmarks", type=Path, help="folder that keeps the videos' landmarks")
    args = parser.parse_args()
    if args.source == "acted":
        found = motion_shards(args.folder)
        if not found:
            raise UserError(f"no motion shards in {args.folder}")
    else:
        found = media_files(args.folder, VIDEO_ENDINGS, "videos")
    left_out = LeftOut()
    step = 1 if args.source == "acted" else CLIPS_PER_SHARD
    groups = [found[i : i + step] for i in range(0, len(found), step)]
    for i, group in enumerate(groups):
        path = args.out / f"{args.source}_{i:05d}.array_record"
        if path.exists():
            continue
        if args.source == "acted":
            clips = list(acted_clips(group[0], seed=i))
        else:
            clips = list(filmed_clips(group, args.folder, left_out, args.landmarks))
        if clips:
            write_shard(path, clips)
        print(f"shard {i + 1} of {len(groups)}: {len(clips)} clips", flush=True)
    left_out.tell(len(found))


if __name__ == "__main__":
    main()
