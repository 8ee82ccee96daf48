"""Motion of many live streams by one compiled step.

``LiveMotion`` owns the batched state of the rolling step: a stream opens a *place* (a row of the
batch), asks for one hop at a time, and frees its place when it leaves. Hops that wait at the same
moment are made together. Places that do not take part are paused by the step's masks, so nothing is
ever compiled again, whoever comes and goes.

One thread steps (``run_waiting``); any thread opens, closes and asks.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from typing import Any, NamedTuple, Protocol

import numpy as np

from vasa_jax.audio import features as audio_features
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.generate import rolling
from vasa_jax.generate.finish.arkit import loud_frames
from vasa_jax.generate.rolling import RollingConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig


class Moves(Protocol):
    """What moves: a motion model and the scale of its motions."""

    @property
    def motion_config(self) -> MotionModelConfig: ...

    @property
    def stats(self) -> MotionStats: ...


class Heard:
    """Features of one stream's next frames, made as its sound comes.

    The states between frames are kept, so that sound which was heard ahead but never shown can be
    forgotten again.
    """

    def __init__(self, model: MotionModelConfig):
        self._cfg = model.features
        self._states = [audio_features.init_state(self._cfg, 1)]  # [i]: before next frame i
        self._rows: list[np.ndarray] = []

    def features(self, samples_TS: np.ndarray) -> np.ndarray:
        """(T, D) of the next T frames of 640 samples; those known already are not made again."""
        for samples in samples_TS[len(self._rows) :]:
            state, row = audio_features.kept_step(self._cfg, self._states[-1], samples[None])
            self._states.append(state)
            self._rows.append(np.asarray(row)[0, 0])
        return np.stack(self._rows[: len(samples_TS)])

    def advance(self, frames: int) -> None:
        """The next ``frames`` frames have been shown."""
        del self._rows[:frames], self._states[:frames]

    def forget(self) -> None:
        """What was heard ahead was never said."""
        del self._rows[:], self._states[1:]


class Hop(NamedTuple):
    """What came of one request."""

    motion: np.ndarray  # (hop, M) physical, before steering
    loud: np.ndarray  # (frames,) whether somebody may be speaking, in the hop and after it
    ms: float  # of the step that made it
    shared: int  # streams in that step


@dataclasses.dataclass(eq=False)
class _Request:
    place: int
    heard: Heard
    samples: np.ndarray
    valid: np.ndarray
    controls: Controls
    skip: bool
    future: concurrent.futures.Future[Hop]


class LiveMotion:
    """``places`` streams of one engine's motion model."""

    def __init__(
        self, engine: Moves, params: Any, cfg: RollingConfig, scales: dict[str, float], places: int
    ):
        self.model, self.cfg = engine.motion_config, cfg
        self.places = places
        self.frames = cfg.hop + cfg.lookahead(self.model)  # of sound that a hop needs
        self._params, self._stats = params, engine.stats
        self._scales = rolling.guidance_scales(cfg, places, scales)
        self._state: rolling.RollingState | None = None  # made in the thread that steps
        self._warm = False
        self._lock = threading.RLock()  # a forgotten stream closes when the collector finds it
        self._free = list(range(places))[::-1]
        self._fresh = np.zeros(places, bool)
        self._seeds = np.zeros(places, np.uint32)
        self._waiting: list[_Request] = []
        # Rows of places that rest; valid features, so that no NaN is ever computed.
        self._rest = np.zeros((places, self.frames, self.model.features.dim), np.float32)

    def _new_state(self) -> rolling.RollingState:
        return rolling.kept_init_state(self.model, np.zeros(self.places, np.uint32))

    def warm_up(self) -> None:
        """Compiles, or reads from the cache, all that a hop runs, by one of silence for nobody.

        Its state is its own, so that streams that run know nothing of it. Later calls do nothing.
        """
        if self._warm:
            return
        nobody = np.zeros(self.places, bool)
        features = self._rest.copy()
        features[:] = Heard(self.model).features(
            np.zeros((self.frames, SAMPLES_PER_FRAME), np.float32)
        )
        self._advance(
            self._new_state(), features, np.ones(features.shape[:2], bool),
            _no_controls(self.places, self.frames), nobody, nobody,
            np.zeros(self.places, np.uint32),
        )  # fmt: skip
        self._warm = True

    @property
    def taken(self) -> int:
        """Places in use."""
        with self._lock:
            return self.places - len(self._free)

    def open(self, seed: int) -> int:
        """A place for a new stream. Raises UserError when there is none."""
        with self._lock:
            if not self._free:
                raise UserError(f"all {self.places} places are taken; try again later")
            place = self._free.pop()
            self._fresh[place], self._seeds[place] = True, seed
            return place

    def close(self, place: int) -> None:
        """Frees a place; hops it still waits for are cancelled."""
        with self._lock:
            for request in self._waiting:
                if request.place == place:
                    request.future.cancel()
            self._free.append(place)

    def ask(
        self,
        place: int,
        heard: Heard,
        samples_TS: np.ndarray,
        valid_T: np.ndarray,
        controls: Controls,
        *,
        skip: bool = False,
    ) -> concurrent.futures.Future[Hop]:
        """The next hop of a stream, of the sound of hop and look-ahead, ``frames`` frames.

        ``skip`` only listens: the sound becomes features, but no motion is made (zeros).
        """
        future: concurrent.futures.Future[Hop] = concurrent.futures.Future()
        request = _Request(place, heard, samples_TS, valid_T, controls, skip, future)
        with self._lock:
            self._waiting.append(request)
        return future

    def run_waiting(self) -> None:
        """Makes all hops that wait, together; called in the one thread that steps."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            requests = [r for r in waiting if r.future.set_running_or_notify_cancel()]
            taking = np.zeros(self.places, bool)
            taking[[r.place for r in requests if not r.skip]] = True
            # From here on a place may be closed and opened again: the newcomer's reset is left to
            # its own first hop, not spent on the hop that is being made for its predecessor.
            reset, self._fresh = self._fresh & taking, self._fresh & ~taking
            seeds = self._seeds.copy()
        if not requests:
            return
        began = time.perf_counter()
        try:
            made = self._step(requests, taking, reset, seeds)
        except BaseException as error:  # each stream learns what went wrong
            self._state = None  # it may have been given away
            with self._lock:
                self._fresh[:] = True
            for r in requests:
                r.future.set_exception(error)
            return
        ms = (time.perf_counter() - began) * 1e3
        for r in requests:
            motion, loud = made[r.place]
            r.future.set_result(Hop(motion, loud, ms, len(requests)))

    def _step(
        self, requests: list[_Request], active: np.ndarray, reset: np.ndarray, seeds: np.ndarray
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Of each place that asked: motion, and where it is loud."""
        hop, places = self.cfg.hop, self.places
        features, valid = self._rest.copy(), np.ones((places, self.frames), bool)
        controls = _no_controls(places, self.frames)
        for r in requests:
            if r.samples.shape != (self.frames, SAMPLES_PER_FRAME):
                raise ValueError(f"a hop takes {self.frames} frames of sound")
            features[r.place] = r.heard.features(r.samples)
            r.heard.advance(hop)
            valid[r.place] = r.valid
            for rows, row in zip(controls, r.controls, strict=True):
                rows[r.place] = row
        cfg = self.model.features
        loud = {r.place: loud_frames(audio_features.power_db(cfg, features[r.place]))
                for r in requests}  # fmt: skip
        if not active.any():
            nothing = np.zeros((hop, self.model.motion_space.dim), np.float32)
            return {place: (nothing, row) for place, row in loud.items()}
        state = self._new_state() if self._state is None else self._state
        self._state, motion = self._advance(state, features, valid, controls, active, reset, seeds)
        physical = self._stats.denormalize(motion)
        return {place: (physical[place], row) for place, row in loud.items()}

    def _advance(
        self, state: rolling.RollingState, features: np.ndarray, valid: np.ndarray,
        controls: Controls, active: np.ndarray, reset: np.ndarray, seeds: np.ndarray,
    ) -> tuple[rolling.RollingState, np.ndarray]:  # fmt: skip
        """The one compiled step; ``state`` is given away."""
        state, motion = rolling.live_step(
            self._params, self.model, self.cfg, state, features, valid, controls,
            self._scales, active_B=active, reset_B=reset, seed_B=seeds,
        )  # fmt: skip
        return state, np.asarray(motion)


def _no_controls(places: int, frames: int) -> Controls:
    """Controls (places, frames) that ask for nothing, to be written into."""
    return Controls(*(np.array(x) for x in Controls.none(places, frames)))
