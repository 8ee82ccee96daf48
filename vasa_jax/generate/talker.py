"""The public API: a release and a portrait make a talker, a talker and speech make frames.

    talker = Talker(load_release("lite"), "portrait.jpg")
    for frame in talker.generate("speech.wav", controls=controls(gaze=[15, 0])):
        ...                                       # uint8 (Y, X, 3), 25 per second
    talker.report()                               # what it cost

Motion for the whole recording comes first (54 numbers a frame); pictures are then rendered a few at
a time, so that memory does not grow with the length. Motion step and render compile once each.

The last step of every frame is the invisible mark (``provenance/watermark.py``) that says what made
it. ``mark=False`` leaves it out, for research that measures the pictures; nothing that people see
should be made that way.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from PIL import Image

from vasa_jax.audio import features as audio_features
from vasa_jax.checkpoint.release import Release
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ, Controls
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import Face, FaceFinder
from vasa_jax.face.find.quality import Flaw, flaws
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.warp.detail import portrait_detail
from vasa_jax.generate.controls import ControlTracks
from vasa_jax.generate.engine import engine_for
from vasa_jax.generate.finish.arkit import loud_frames, speaking
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.offline import (
    generate_motion,
    roll_chunk,
    speech_features,
)
from vasa_jax.generate.rolling import SAMPLERS
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import read_image
from vasa_jax.provenance.payload import Payload
from vasa_jax.provenance.watermark import Marker

if TYPE_CHECKING:
    from vasa_jax.generate.live.stream import LiveConfig, LiveStream

Path = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]  # "motion" or "render", done, in all

MAX_SIDE = 1920  # of the full picture; larger ones make videos that players refuse
MIN_SECONDS = 0.2
RENDER_BATCH = 4
RENDER_AHEAD = 2  # batches computed at the same time

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class _CompileCounter:
    """Counts XLA compilations of this process."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **unused: str | int) -> None:
        self.count += event == _COMPILE_EVENT


@functools.cache
def _compile_counter() -> _CompileCounter:
    return _CompileCounter()


class Talker:
    """One portrait ready to speak.

    ``release`` is a loaded one, a name, a folder or a URL; ``portrait`` a path or uint8 RGB
    (Y, X, 3); ``face`` chooses among several, 0 is the largest. ``flaws`` says what will look wrong
    in it, which is refused if ``strict``. Raises UserError when the picture can't be read or has no
    face.
    """

    def __init__(
        self,
        release: Release | Path,
        portrait: Path | np.ndarray,
        *,
        face: int = 0,
        max_side: int = MAX_SIDE,
        strict: bool = False,
    ):
        self._compilations_before = _compile_counter().count
        self._name = "the picture" if isinstance(portrait, np.ndarray) else os.fspath(portrait)
        image = _as_picture(portrait)
        self.image = _within(image, max_side)
        self.faces: list[Face] = FaceFinder().find(self.image, everybody=face > 0 or None)
        self.face = _choose(self.faces, face, self._name)
        self.flaws: list[Flaw] = flaws(self.image, self.face)
        if strict and self.flaws:
            raise UserError(f"{self._name}: {'; '.join(self.warnings)}")
        self.engine = engine_for(release)
        self.crop = align.crop_from_landmarks(self.face.landmarks)
        square = align.extract(self.image, self.crop, self.engine.size)
        # Motion does not ask who speaks, so the portrait is fitted and encoded beside it.
        pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="portrait")
        self._prepared = pool.submit(self._prepare, square)
        pool.shutdown(wait=False)
        self._spent = {"motion": 0.0, "render": 0.0, "paste": 0.0, "mark": 0.0}
        self._frames, self._seed, self._frame = 0, 0, "full"
        self._said: Payload | None = None

    def _prepare(self, square: np.ndarray) -> tuple[FaceFit, Any]:
        return self.engine.prepare(square, align.to_crop(self.face.landmarks, self.crop))

    @property
    def fit(self) -> FaceFit:
        """The head model's place in the portrait's crop; waits until it is known."""
        return self._prepared.result()[0]

    @property
    def appearance(self) -> Any:
        """What the renderer knows of the portrait; waits until it is known."""
        return self._prepared.result()[1]

    @property
    def warnings(self) -> list[str]:
        """What will look wrong with this portrait, one line each; mostly none."""
        return [flaw.text for flaw in self.flaws]

    @property
    def release(self) -> Release:
        return self.engine.release

    @property
    def size(self) -> int:
        """Side of the model's square in px."""
        return self.engine.size

    def frame_size(self, frame: Literal["full", "crop"] = "full") -> tuple[int, int]:
        """Width and height of the frames that ``generate`` yields."""
        if frame == "crop":
            return self.engine.size, self.engine.size
        return self.image.shape[1], self.image.shape[0]

    def marker(self, frame: Literal["full", "crop"] = "full") -> Marker:
        """What marks frames from now on: with this release and this minute."""
        width, height = self.frame_size(frame)
        return Marker(Payload.of(self.release.sha256), height, width)

    def motion(
        self,
        speech: Path | np.ndarray,
        *,
        controls: ControlTracks | Controls | None = None,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Driving motion (T, 54) of a recording (a path, or mono float32 at 16 kHz).

        With sampler, steps or guidance given the release's full motion model makes it, otherwise
        the few-step student if the release has one.
        """
        samples = speech if isinstance(speech, np.ndarray) else read_audio(speech)
        samples = _as_speech(samples)
        chosen = sampler is not None or steps is not None or guidance is not None
        defaults = self.engine.defaults if chosen else self.engine.quick_defaults
        params = self.engine.motion_params if chosen else self.engine.quick_params
        sampler = sampler or defaults.sampler
        steps = defaults.steps if steps is None else steps
        guidance = defaults.guidance if guidance is None else guidance
        if sampler not in SAMPLERS:
            raise UserError(f"no sampler {sampler!r}; there are {', '.join(SAMPLERS)}")
        if steps < 1:
            raise UserError(f"steps must be 1 or more, not {steps}")
        begin = time.perf_counter()
        engine = self.engine
        features = speech_features(engine.motion_config, samples)
        total = len(features)
        if controls is None or isinstance(controls, ControlTracks):
            controls = (controls or ControlTracks()).rows(total)
        motion = generate_motion(
            engine.motion_config,
            params,
            engine.stats,
            features,
            controls,
            seed=seed,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            grid=defaults.grid,
            temperature=defaults.temperature,
            progress=None if progress is None else functools.partial(progress, "motion"),
        )
        loud = loud_frames(audio_features.power_db(engine.motion_config.features, features))
        finish = finish_for(engine.motion_config.motion_space, seed=seed)
        motion = finish(motion, controls, speaking(loud, total))
        self._spent["motion"] += time.perf_counter() - begin
        return motion

    def generate(
        self,
        speech: Path | np.ndarray,
        *,
        controls: ControlTracks | Controls | None = None,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: Mapping[str, float] | None = None,
        frame: Literal["full", "crop"] = "full",
        mark: bool = True,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """Frames uint8 (Y, X, 3), 25 per second, as many as the speech fills.

        Args:
            controls: ``controls(...)``, or ``Controls`` with one row per frame.
            seed: the same seed on the same machine gives the same frames, but for the time that the
                mark says.
            sampler, steps, guidance: of the diffusion; None in all takes the release's own way.
            frame: the whole picture with the head put back, or the model's square.
            mark: False leaves out the invisible mark; for measuring the pictures alone.

        Raises:
            UserError: unreadable or too short speech, unknown sampler or condition.
        """
        if frame not in ("full", "crop"):
            raise UserError(f"frame is full or crop, not {frame!r}")
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._frames, self._seed, self._frame = 0, seed, frame
        motion = self.motion(
            speech,
            controls=controls,
            seed=seed,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            progress=progress,
        )
        return self._pictures(motion, frame, self.marker(frame) if mark else None, progress)

    def render(self, motion_TM: np.ndarray) -> Iterator[np.ndarray]:
        """The model's square, uint8, for each row of a driving motion (T, M)."""
        return (square for square, _ in self._squares(motion_TM, None))

    def _squares(
        self, motion_TM: np.ndarray, detail: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The model's square of each row, and the finest there is, which may be the same."""
        engine, batch = self.engine, RENDER_BATCH
        detail = None if detail is None else jax.device_put(detail)  # once, not for every batch

        def compute(start: int) -> list[tuple[np.ndarray, np.ndarray]]:
            rows = motion_TM[start : start + batch]
            # The last batch is filled up: another shape would compile another program.
            full = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), 0)])
            if detail is None:
                images = fine = engine.draw(self.appearance, full)
            else:
                images, fine = engine.draw_fine(self.appearance, detail, full)
            return list(zip(images[: len(rows)], fine, strict=False))

        # Two batches at a time: one program of many small operations does not fill two CPU cores,
        # and on an accelerator the next batch is computed while this one is copied and encoded.
        starts = range(0, len(motion_TM), batch)
        with concurrent.futures.ThreadPoolExecutor(RENDER_AHEAD) as pool:
            waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
            try:
                for i, start in enumerate(starts):
                    begin = time.perf_counter()
                    waiting.append(pool.submit(compute, start))
                    # The first is awaited, so that it is compiled once, not once per thread; and
                    # handed on before others take the cores from whoever is waiting for it.
                    first = i == 0 or len(waiting) > RENDER_AHEAD
                    ready = waiting.popleft().result() if first else None
                    self._spent["render"] += time.perf_counter() - begin
                    if ready is not None:
                        yield from ready
                while waiting:
                    begin = time.perf_counter()
                    ready = waiting.popleft().result()
                    self._spent["render"] += time.perf_counter() - begin
                    yield from ready
            finally:
                for future in waiting:
                    future.cancel()

    def stream(
        self,
        audio: Any = None,
        *,
        rate: int = SAMPLE_RATE_HZ,
        controls: ControlTracks | None = None,
        pose: Sequence[float] = (0.0, 0.0, 0.0),
        seed: int = 0,
        frame: Literal["full", "crop"] = "full",
        pace: bool = True,
        microphone: bool = False,
        mark: bool = True,
        live: LiveConfig | None = None,
    ) -> LiveStream:
        """Live: ``async for frame in talker.stream(audio)``; see ``generate/live/stream.py``.

        It warms up before its clock starts, the first time on a machine for a minute or so.

        Args:
            audio: samples (S,), or an iterator, async or not, of pieces of any size, mono at
                ``rate`` Hz; None: feed it by ``push``.
            controls, pose: what to follow, and a bias (yaw, pitch, roll in degrees), until ``ask``.
            pace: by the clock, 25 a second; False: as fast as frames are made.
            microphone: the sound is the present; what can't be answered in time is dropped.
            mark: False leaves out the invisible mark; for measuring the pictures alone.

        Raises:
            UserError: bad rate, pose or frame, or all places of the live engine are taken.
        """
        from vasa_jax.generate.live import stream as realtime

        asked = realtime.Asked(
            controls=controls or ControlTracks(), pose_deg=realtime.checked_pose(pose)
        )
        return realtime.LiveStream(
            realtime.live_engine(self.engine, live), self, rate=rate, seed=seed, asked=asked,
            frame=frame, pace=pace, microphone=microphone, mark=mark, audio=audio,
        )  # fmt: skip

    def _pictures(
        self, motion_TM: np.ndarray, frame: str, marker: Marker | None, progress: Progress | None
    ) -> Iterator[np.ndarray]:
        self._said = None if marker is None else marker.payload
        paster = align.Paster(
            self.image, self.crop, self.engine.size, landmarks=self.face.landmarks
        )
        detail = None
        if frame == "full":
            detail = portrait_detail(self.image, self.crop, self.engine.size)
        for square, fine in self._squares(motion_TM, detail):
            begin = time.perf_counter()
            picture = square
            if frame == "full":
                picture = paster.paste(fine, paster.mask(square))
            pasted = time.perf_counter()
            self._spent["paste"] += pasted - begin
            if marker is not None:
                picture = marker(picture)
                self._spent["mark"] += time.perf_counter() - pasted
            self._frames += 1
            yield picture
            if progress is not None:
                progress("render", self._frames, len(motion_TM))

    def report(self) -> dict[str, Any]:
        """Numbers of the last ``generate``: frames, ms per frame by part, compilations, face."""
        count = max(self._frames, 1)
        release = self.release
        return {
            "frames": self._frames,
            "fps": FPS,
            "duration": round(self._frames / FPS, 3),
            "size": list(self.frame_size("crop" if self._frame == "crop" else "full")),
            "frame": self._frame,
            "ms_per_frame": {k: round(v * 1e3 / count, 3) for k, v in self._spent.items()},
            "compilations": _compile_counter().count - self._compilations_before,
            "compiled": {
                "motion": roll_chunk.count,
                "render": self.engine.render.count,
            },
            "faces": len(self.faces),
            "face_box": [round(v, 1) for v in self.face.box],
            "face_score": round(self.face.score, 4),
            "warnings": self.warnings,
            "portrait_size": [self.image.shape[1], self.image.shape[0]],
            "release": release.name,
            "release_sha256": release.sha256,
            "seed": self._seed,
            "mark": None if self._said is None else self._said.to_json(),
        }


def _as_picture(portrait: Path | np.ndarray) -> np.ndarray:
    if not isinstance(portrait, np.ndarray):
        return read_image(portrait)
    if portrait.dtype != np.uint8 or portrait.ndim != 3 or portrait.shape[-1] != 3:
        raise UserError(
            f"a portrait array is uint8 (height, width, 3), not {portrait.dtype} {portrait.shape}"
        )
    return portrait


def _within(image: np.ndarray, max_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1.0:
        return image
    size = max(2, round(width * scale)), max(2, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _choose(faces: list[Face], number: int, name: str) -> Face:
    if not faces:
        raise UserError(f"no face found in {name}; give a picture with a face seen from the front")
    if not 0 <= number < len(faces):
        there = "there is one face, number 0" if len(faces) == 1 else f"0 to {len(faces) - 1}"
        raise UserError(f"no face {number} in {name}: {there}")
    return faces[number]


def _as_speech(samples: np.ndarray) -> np.ndarray:
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise UserError("speech arrays are mono floats at 16 kHz, shape (samples,)")
    if len(samples) < MIN_SECONDS * SAMPLE_RATE_HZ:
        seconds = len(samples) / SAMPLE_RATE_HZ
        raise UserError(f"the sound lasts {seconds:.2f} s; give at least {MIN_SECONDS} s")
    return samples.astype(np.float32, copy=False)
