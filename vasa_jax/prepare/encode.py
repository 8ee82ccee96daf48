"""Stage-2 records from prepared clips, in the motion space of a face.

::

    clip ──► pictures, fits ──► the face's encode_motion ──► motion (T, M)
      │                                                        └─► readout: ridge probe of what
      ├────► sound                                                 the fits know (lips, lids, gaze)
      └────► gaze, distance ──► controls

A code means what its ``E_dyn`` makes of a picture, so the space's origin goes with the records
(``core/space.py``). The lite face has no code: its motions are the head fit's own weights, or what
a trained motion encoder reads off the landmarks (``videos.landmark_clip``), which is steadier.

Poses are relative to a clip's usual pose, as they are to a portrait's when a face is driven.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.checkpoint import train_state
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.config import from_json, to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT
from vasa_jax.core.types import FPS, POSE, Controls
from vasa_jax.data import records
from vasa_jax.data.corpus import READOUT
from vasa_jax.data.records import Record, Records, landmarks_of
from vasa_jax.data.shards import MotionClip, to_record
from vasa_jax.face.faces import FACES, build_face, space_of_face
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.head.head import Head, load_head
from vasa_jax.face.head.reader import MotionReader
from vasa_jax.face.model import FaceModel, from_uint8
from vasa_jax.io.atomic import replacing
from vasa_jax.io.clip_video import decoded
from vasa_jax.motion.readout import NAMES, Readout, fit_readout, readout_of
from vasa_jax.prepare.videos import landmark_clip, load_reader, real_clip, sealed_clip

CLIPS_PER_SHARD = 200  # what is lost when a run is killed
PROBE_EVERY = 5  # frames from one to the next that the readout is fitted on
PROBE_FRAMES = 200_000  # at most
DISTANCE_S = 2.0  # a distance label is the mean over so long
BATCH = 8  # pictures that are encoded at once


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Motions of clips in the space of one face."""

    face: FaceModel
    params: Any
    reader: MotionReader | None = None  # of landmarks, for a face of named weights
    batch: int = BATCH

    def __call__(self, clip: Record) -> MotionClip:
        """A prepared clip as training wants it. Sound and picture are as long as one another."""
        arrays = clip.arrays
        samples = arrays["samples"].astype(np.float32) / 32767
        person = str(clip.meta["person"])
        speech = bool(clip.meta.get("speech", True))
        if self.reader is not None:
            made = landmark_clip(landmarks_of(clip) * clip.meta["size"], samples, self.reader)
        elif self.face.space.cfg.kind == "arkit":
            read = sealed_clip if speech else real_clip
            made = read(samples, self.motion(clip))
        else:
            motion = self.motion(clip)
            trust = np.ones(motion.shape[1], np.float32)
            trust[3:7] = 0.2  # translation and size of the head are noisy
            unknown = np.full(len(motion), -1, np.int8)
            made = MotionClip(samples, motion, Controls.none(len(motion)), unknown, trust, speech)
        return made._replace(controls=controls_of(clip, made.motion), person=person, speech=speech)

    def motion(self, clip: Record) -> np.ndarray:
        """(T, M): the face's motion of every picture, relative to the clip's usual pose."""
        fits, places = clip.arrays["motion"].astype(np.float32), clip.arrays["placement"]
        rows: list[np.ndarray] = []
        for start, images in _batches(decoded(clip.arrays["video"]), self.batch):
            count = len(images)
            at = np.minimum(np.arange(start, start + self.batch), len(fits) - 1)
            images = np.concatenate([images, np.repeat(images[-1:], self.batch - count, 0)])
            found = self._program(
                self.params, self.face.head, from_uint8(resized(images, self.face.size)),
                fits[at], places[at], fits[0], places[0],
            )  # fmt: skip
            rows.append(np.asarray(found)[:count])
        motion = np.concatenate(rows)
        if len(motion) != len(fits):
            raise UserError(
                f"the clip {clip.meta['id']} has {len(motion)} pictures and {len(fits)} fits"
            )
        return with_usual_pose_zero(motion)

    @functools.cached_property
    def _program(self) -> Callable[..., Any]:
        """``encode_motion`` of the face, compiled once."""

        def encode(params, head, images, motion, placement, anchor_motion, anchor_placement):
            zero = jnp.zeros(())
            fit = FaceFit(zero, motion, placement, zero)
            anchor = FaceFit(zero, anchor_motion, anchor_placement, zero)
            with jax.numpy_rank_promotion("allow"):
                return self.face.encode_motion(params, head, images, fit, anchor)

        return jax.jit(encode)


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """First number and pictures (B, Y, X, 3) of each batch."""
    start, held = 0, []
    for frame in frames:
        held.append(frame)
        if len(held) == size:
            yield start, np.stack(held)
            start, held = start + size, []
    if held:
        yield start, np.stack(held)


def resized(images_BYXC: np.ndarray, size: int) -> np.ndarray:
    """Pictures at the size that a face wants, by areas."""
    if images_BYXC.shape[1] == size:
        return images_BYXC
    from PIL import Image

    shrink = Image.Resampling.BOX if images_BYXC.shape[1] % size == 0 else Image.Resampling.LANCZOS
    return np.stack(
        [np.asarray(Image.fromarray(x).resize((size, size), shrink)) for x in images_BYXC]
    )


def with_usual_pose_zero(motion_TM: np.ndarray) -> np.ndarray:
    """Motion whose poses are relative to the clip's median pose; they were to some other's.

    The turn is a difference of angles, as everywhere (``face/head/pose.py``); a shift counts in
    head widths of the anchor's size, so it is divided by how much larger the usual head is.
    """
    out = np.array(motion_TM, np.float32)
    usual = np.median(out[:, POSE], axis=0)
    out[:, POSE] -= usual
    out[:, 3:5] *= np.exp(-usual[6])
    return out


def controls_of(clip: Record, motion_TM: np.ndarray) -> Controls:
    """What is known of a clip as conditions: the gaze that it keeps to, and how near it is."""
    frames = len(motion_TM)
    on = np.ones(frames, np.float32)
    log_scale = motion_TM[:, POSE.stop - 1]
    controls = Controls.none(frames)._replace(
        distance=np.exp(-_slow(log_scale)).astype(np.float32), distance_on=on
    )
    if "gaze" in clip.meta:
        gaze = np.asarray(clip.meta["gaze"], np.float32)
        controls = controls._replace(gaze=np.tile(gaze, (frames, 1)), gaze_on=on)
    return controls


def _slow(values_T: np.ndarray) -> np.ndarray:
    """Centred mean over ``DISTANCE_S``, of what there is at the ends."""
    half = round(DISTANCE_S * FPS / 2)
    total = np.concatenate([[0.0], np.cumsum(values_T, dtype=np.float64)])
    at = np.arange(len(values_T))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values_T))
    return ((total[high] - total[low]) / (high - low)).astype(np.float32)


def open_face(source: str, head: Head) -> tuple[FaceModel, Any]:
    """The face of a stage-1 run folder (its averaged weights) or of a release.

    Raises UserError when it is neither, or the run is of another model.
    """
    folder = Path(source)
    if (folder / train_state.FOLDER).is_dir():
        _, params = train_state.read_params(folder, item="ema")
        table = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        table = {**table, "kind": _kind(table, folder)}
    else:
        release = load_release(source)
        params, table = release.params["face"], release.config["face"]
    return build_face(table, head, space=space_of_face(table, params)), params


def _kind(table: dict[str, Any], folder: Path) -> str:
    """Which face a run trained: the one whose nets its configuration describes."""
    for kind, cls in FACES.items():
        with contextlib.suppress(UserError):
            from_json(cls, table.get("model", {}))
            return kind
    raise UserError(f"{folder} is no run of stage 1 (configs/face_256_lite.py, face_512.py)")


class Probe:
    """Frames that the readout of a latent space is fitted and judged on: every second clip each."""

    def __init__(self) -> None:
        self._motion: list[list[np.ndarray]] = [[], []]
        self._known: list[list[np.ndarray]] = [[], []]
        self._count, self._clips = 0, 0

    def add(self, motion_TM: np.ndarray, clip: Record) -> None:
        """Some frames of a clip and what its fit knows of them."""
        if self._count >= PROBE_FRAMES:
            return
        known = readout_of(ARKIT, {})
        assert known is not None
        rows = slice(None, None, PROBE_EVERY)
        which = self._clips % 2
        self._motion[which].append(motion_TM[rows])
        self._known[which].append(known(clip.arrays["motion"].astype(np.float32)[rows]))
        self._count += len(self._motion[which][-1])
        self._clips += 1

    def fit(self) -> tuple[Readout, dict[str, float]] | None:
        """The readout, and R2 of each number on the clips that it was not fitted on."""
        if not all(self._motion):
            return None
        (x, x_held), (y, y_held) = (
            [np.concatenate(part) for part in parts] for parts in (self._motion, self._known)
        )
        made = fit_readout(x, y)
        error = np.square(made(x_held) - y_held).mean(0)
        spread = np.maximum(y_held.var(0), 1e-12)
        return made, {n: float(1 - e / s) for n, e, s in zip(NAMES, error, spread, strict=True)}


def encode_folder(
    encoder: Encoder,
    clips: Path,
    out: Path,
    *,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Records of all clips of a folder in ``out``; those that are there are left alone.

    ``say`` hears how many of how many are done. Returns clips, frames, and ``readout`` (R2 by
    name, for a latent space). Raises UserError for a folder without clips, or one of another space.
    """
    found = Records(records.shards(clips))
    wanted = np.flatnonzero(found.kinds == "clip")
    if not len(wanted):
        raise UserError(f"{clips} holds no clips; make some with vasa-jax prepare")
    space = encoder.face.space
    records.write_about(out, {"kind": "motion", "space": to_json(space.cfg)})
    done = records.shards(out)
    there = set(Records(done).ids.tolist())
    missing = [i for i in wanted if found.ids[i] not in there]
    missing.sort(key=lambda i: str(found.ids[i]))
    probe = Probe()
    number, frames = len(done), 0
    for first in range(0, len(missing), CLIPS_PER_SHARD):
        blobs = []
        for at, i in enumerate(missing[first : first + CLIPS_PER_SHARD], first):
            clip = found[i]
            made = encoder(clip)
            name = str(clip.meta["id"])
            blobs.append(records.pack(to_record(made, name, space.cfg)))
            frames += len(made.motion)
            if space.cfg.kind == "latent":
                probe.add(made.motion, clip)
            say(at + 1, len(missing))
        while (path := out / f"latents-{number:05d}.array_record").exists():
            number += 1
        records.write_shard(path, blobs)
        number += 1
    report: dict[str, Any] = {"clips": len(missing), "frames": frames, "skipped": len(there)}
    fitted = probe.fit()
    if fitted is not None and not (out / READOUT).exists():  # of the first run, whose clips it saw
        readout, report["readout"] = fitted
        table = {**readout.to_json(), "r2": report["readout"]}
        with replacing(out / READOUT) as part:
            part.write_text(json.dumps(table) + "\n", encoding="utf-8")
    return report


def encoder_of(source: str, clips: Path, motion_encoder: str = "", batch: int = BATCH) -> Encoder:
    """An encoder of a run or release, with the head that the clips were fitted with."""
    head = load_head(clips / "head.npz")
    face, params = open_face(source, head)
    if not motion_encoder:
        return Encoder(face, params, batch=batch)
    if face.space.cfg.kind != "arkit":
        raise UserError("--encoder reads named weights; this face has a code of its own")
    return Encoder(face, params, load_reader(motion_encoder, clips / "head.npz"), batch)
