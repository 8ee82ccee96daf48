"""Stage-2 clips from videos of one talking person each: landmarks, then the motion encoder.

video ──► landmarks of every frame ──► rest face ──► E_motion per frame ──► MotionClip
  └─────► sound ──► phonemes ──► visemes, and which frames are silent ──┘

python -m vasa_jax.prepare.shards videos OUT --folder DIR --encoder runs/motion_encoder
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from vasa_jax.checkpoint.train_state import read_params
from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import POSE, SAMPLES_PER_FRAME, Controls
from vasa_jax.data.faces import example_head
from vasa_jax.data.folders import VIDEO_ENDINGS, LeftOut, beside, made_from, media_files, person_of
from vasa_jax.data.shards import MotionClip, write_shard
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceTracker
from vasa_jax.face.head.head import load_head
from vasa_jax.face.head.reader import MotionEncoderConfig, MotionReader, typical_rest
from vasa_jax.io.audio import shifted, to_speech
from vasa_jax.io.video import read_video, read_video_audio
from vasa_jax.synth.recorded import recognised
from vasa_jax.synth.speech import visemes

FOUND_SHARE = 0.9  # of the frames; a video with fewer faces is left out
NO_FACE = f"a face was found in less than {FOUND_SHARE:.0%} of its frames"
SILENT = 0.05  # of the speaking curve


def load_reader(run: str | Path, head: str | Path | None = None) -> MotionReader:
    """The trained encoder of a run folder, with a head file or the bundled release's head."""
    path = Path(run) / "config.json"
    if not path.is_file():
        raise UserError(f"{run} is no run of configs/motion_encoder.py (it has no config.json)")
    config = json.loads(path.read_text(encoding="utf-8"))
    _, params = read_params(run)
    cfg = from_json(MotionEncoderConfig, config["model"])
    head = head or config.get("head")
    return MotionReader(cfg, params, load_head(head) if head else example_head())


def video_landmarks(path: Path, kept: Path | None = None) -> np.ndarray:
    """Landmarks (T, 478, 3) in px of a video's face, NaN where none is found.

    ``kept`` is a folder in which they stay, so that another encoder need not look again. Raises
    UserError when the video can't be read.
    """
    store = made_from(path, path.parent, kept) if kept is not None else None
    if store is not None and store.exists():
        with contextlib.suppress(OSError, KeyError, ValueError, zipfile.BadZipFile):
            with np.load(store) as table:  # one that is damaged is made again
                return table["landmarks"]
    tracker = FaceTracker()
    rows = []
    for frame in read_video(path):
        face = tracker.track(frame)
        rows.append(np.full((478, 3), np.nan) if face is None else face.landmarks)
    landmarks = np.stack(rows).astype(np.float32) if rows else np.zeros((0, 478, 3), np.float32)
    if store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
        temporary = store.with_name(f".{store.stem}.{os.getpid()}.part.npz")
        try:
            np.savez(temporary, landmarks=landmarks)
            temporary.replace(store)
        finally:
            temporary.unlink(missing_ok=True)
    return landmarks


def video_clip(
    path: Path,
    reader: MotionReader,
    *,
    kept: Path | None = None,
    audio_late_frames: float = 0.0,
) -> MotionClip | None:
    """A video of one talking person read by the encoder; None where no face is found.

    ``audio_late_frames`` is how much the sound lags the picture, negative where it is early; it is
    taken out. Raises UserError for a video that can't be read, or that has no sound.
    """
    samples = video_sound(path)  # first: a video without any need not be looked at
    landmarks = video_landmarks(path, kept)
    if not found_enough(landmarks):
        return None
    ok = np.isfinite(landmarks).all((1, 2))
    # A frame without a face repeats the one before it.
    last = np.maximum.accumulate(np.where(ok, np.arange(len(ok)), int(np.argmax(ok))))
    samples = shifted(samples, -round(audio_late_frames * SAMPLES_PER_FRAME))
    return landmark_clip(landmarks[last], samples, reader)


def found_enough(landmarks_TL3: np.ndarray) -> bool:
    """Whether landmarks, NaN where no face was found, are those of a face seen nearly always."""
    ok = np.isfinite(landmarks_TL3).all((1, 2))
    return bool(len(ok)) and bool(ok.mean() >= FOUND_SHARE)


def landmark_clip(
    landmarks_TL3: np.ndarray, samples: np.ndarray, reader: MotionReader
) -> MotionClip:
    """Landmarks (T, 478, 3) in px and mono sound at 16 kHz of one person -> their clip.

    The lips are shut on every p, b and m that is heard. People do so nine times of ten
    (``metrics/sync.py``), but landmarks of lips that touch are still a few pixels apart, and the
    encoder passes that on.
    """
    frames = min(len(landmarks_TL3), len(samples) // SAMPLES_PER_FRAME)
    samples = np.asarray(samples[: frames * SAMPLES_PER_FRAME], np.float32)
    landmarks = landmarks_TL3[:frames]
    crop = align.crop_from_landmarks(np.median(landmarks, axis=0))
    in_crop = align.to_crop(landmarks, crop)
    heard = visemes.mouth_curves(recognised(samples).phonemes, samples)
    rest = reader.rest(typical_rest(in_crop, heard.speaking[:frames] < SILENT))
    return sealed_clip(samples, reader(in_crop, rest), heard)


def sealed_clip(
    samples: np.ndarray, motion: np.ndarray, heard: visemes.MouthCurves | None = None
) -> MotionClip:
    """Motion (T, 54) read off a person who says ``samples``, its lips shut where they must be.

    ``heard`` is what the recogniser makes of the sound; None asks it.
    """
    frames = len(motion)
    if heard is None:
        heard = visemes.mouth_curves(recognised(samples).phonemes, samples)
    shut, unknown = heard.closure[:frames], np.zeros(frames, np.float32)
    motion[:, EXPRESSION] = visemes.seal(motion[:, EXPRESSION], shut, unknown)
    return real_clip(samples, motion, heard.viseme[:frames].astype(np.int8))


def video_sound(path: Path) -> np.ndarray:
    """The sound of a video, mono at 16 kHz."""
    return to_speech(*read_video_audio(path))


def real_clip(
    samples: np.ndarray, motion: np.ndarray, viseme: np.ndarray | None = None
) -> MotionClip:
    """A real recording as a clip: pose relative to its own median, controls measured.

    Head translation, scale and gaze are noisy, so they count little. Lids don't count at all:
    the landmarks of a closing eye stop short of shut, and blinks must not learn to.
    """
    frames = min(len(motion), len(samples) // SAMPLES_PER_FRAME)
    motion = np.array(motion[:frames], np.float32)
    motion[:, POSE] -= np.median(motion[:, POSE], axis=0)
    controls = Controls.none(frames)
    gaze = np.median(motion[:, GAZE], axis=0)
    controls = controls._replace(
        gaze=np.tile(gaze, (frames, 1)).astype(np.float32),
        gaze_on=np.ones(frames, np.float32),
        distance=np.ones(frames, np.float32),
        distance_on=np.ones(frames, np.float32),
    )
    trust = np.ones(MOTION_DIM, np.float32)
    trust[3:7] = trust[GAZE] = 0.2
    trust[[MOTION_INDEX["eyeBlink_L"], MOTION_INDEX["eyeBlink_R"]]] = 0.0
    return MotionClip(
        samples[: frames * SAMPLES_PER_FRAME].astype(np.float32), motion, controls,
        np.full(frames, -1, np.int8) if viseme is None else viseme[:frames], trust, True,
    )  # fmt: skip


def make_video_shards(
    out: Path,
    folder: Path,
    reader: MotionReader,
    *,
    per_shard: int = 50,
    first: int = 0,
    kept: Path | None = None,
) -> None:
    """Shards of every video in ``folder`` and below it; those that exist are left alone.

    A video that is damaged, has no sound or no face is left out and told. Raises UserError where
    there is no video, or none can be used.
    """
    found = media_files(folder, VIDEO_ENDINGS, "videos")
    left_out = LeftOut()
    shards = -(-len(found) // per_shard)
    for i in range(first, shards):
        path = out / f"video_{i:05d}.array_record"
        if path.exists():
            continue
        clips = []
        for video in found[i * per_shard : (i + 1) * per_shard]:
            try:
                clip = video_clip(video, reader, kept=beside(video, folder, kept))
            except UserError as error:
                left_out.add(video, error)
                continue
            if clip is None:
                left_out.add(video, NO_FACE)
            else:
                clips.append(clip._replace(person=person_of(video, folder)))
        if clips:
            write_shard(path, clips)
        print(f"shard {i + 1} of {shards}: {len(clips)} clips", flush=True)
    left_out.tell(len(found))
