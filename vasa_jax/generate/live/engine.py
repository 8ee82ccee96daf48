"""What live streams of one engine share: how they run, the thread that steps, those that render."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from vasa_jax.generate.live.motion import Hop, LiveMotion, Moves
from vasa_jax.generate.live.pictures import Drawn, Finisher, Surroundings
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.generate.rolling import RollingConfig, branches
from vasa_jax.provenance.payload import Payload

RENDER_THREADS = 2
FRAMES: tuple[Literal["full", "crop"], ...] = ("full", "crop")  # what streams may show
SAID_AFTER_S = 1.5  # a warm-up that lasts longer is spoken of
NOTICE = (
    "warming up for live pictures; the first time on a machine this compiles for a minute or so, "
    "and no stream's clock runs meanwhile"
)

_log = logging.getLogger("vasa_jax.live")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How streams of one engine run. A change of the first block compiles anew."""

    hop: int = 2  # frames per step
    ahead: int | None = 1  # frames of sound waited for after a hop; None: all the model can use
    steps: int | None = None  # of the full model's sampler; None: the release's quickest way
    places: int = 1  # streams at the same time

    gap_ms: float = 160.0  # sound missing for this long becomes silence
    late_ms: float = 80.0  # one picture of a hop from here on
    lost_ms: float = 240.0  # none
    backlog_ms: float = 400.0  # of a live source; older sound is dropped
    buffer_s: float = 60.0  # of other sources; then ``push`` waits


class Draws(Protocol):
    """What draws one portrait after another."""

    def rest(self, appearance: Any) -> np.ndarray:
        """The motion (M,) of a portrait that rests."""

    def draw(self, appearance: Any, motion_BM: np.ndarray) -> np.ndarray:
        """Squares uint8 (B, Y, X, 3)."""


class Works(Moves, Draws, Protocol):
    """What streams run on: a release whose face and motion are on the device."""

    motion_params: Any
    quick_params: Any  # with ``quick_defaults`` the quickest way to sample
    defaults: GenerateDefaults
    quick_defaults: GenerateDefaults
    live: dict[Any, Any]  # its live engines by ``LiveConfig``
    retired: bool  # another took its place: threads end as soon as no stream needs them


class Portrayed(Surroundings, Protocol):
    """A portrait that can be drawn."""

    @property
    def appearance(self) -> Any: ...


class LiveEngine:
    """The threads and the compiled step that streams share."""

    def __init__(self, engine: Works, cfg: LiveConfig | None = None):
        self.cfg = cfg = cfg or LiveConfig()
        self.engine = engine
        quick = cfg.steps is None
        params = engine.quick_params if quick else engine.motion_params
        defaults = engine.quick_defaults if quick else engine.defaults
        scales = branches(defaults.guidance)
        self.rolling = RollingConfig(
            hop=cfg.hop,
            ahead=cfg.ahead,
            sampler=defaults.sampler,
            steps=cfg.steps or defaults.steps,
            grid=defaults.grid,
            guided=tuple(scales),
            temperature=defaults.temperature,
        )
        self.motion = LiveMotion(engine, params, self.rolling, scales, cfg.places)
        self._lock = threading.Lock()
        self._pools: dict[str, concurrent.futures.ThreadPoolExecutor] = {}
        self._warming = threading.Lock()
        self._warm: weakref.WeakSet[Portrayed] = weakref.WeakSet()

    @property
    def latency_ms(self) -> float:
        """Declared: from a sound to the frame that shows it, at most, compute excluded."""
        return self.rolling.latency_ms(self.motion.model)

    def ask(self, *args: Any, **options: Any) -> concurrent.futures.Future[Hop]:
        """``LiveMotion.ask``, and sees to it that the step is made."""
        future = self.motion.ask(*args, **options)
        self._in_stepper(self.motion.run_waiting)
        return future

    def ask_picture(
        self, talker: Portrayed, motion_M: np.ndarray
    ) -> concurrent.futures.Future[Drawn]:
        """``draw`` in one of the threads that render."""
        return self._submit("live-render", RENDER_THREADS, self.draw, talker, motion_M)

    def leave(self, place: int) -> None:
        """A stream is over. The threads of an engine that was replaced end with the last one."""
        self.motion.close(place)
        if self.engine.retired:
            self.rest()

    def rest(self) -> None:
        """Lets the threads end unless a stream needs them; they come again when one does."""
        if self.motion.taken == 0:
            self._end_threads(cancel=False)

    def warm_up(self, talker: Portrayed) -> None:
        """Compiles, or reads from the cache, all that streams of ``talker`` run.

        The first of a release takes tens of seconds where nothing is cached, and says so in the
        log; another portrait takes a moment, and one that was here before none. Any thread may call
        it; streams that run meanwhile lose nothing but processor time.
        """
        with self._warming:
            if talker in self._warm:
                return
            began = time.perf_counter()
            notice = threading.Timer(SAID_AFTER_S, _log.warning, (NOTICE,))
            notice.daemon = True
            notice.start()
            try:
                self._warm_up(talker)
            finally:
                notice.cancel()
            _log.info("warm after %.1f s", time.perf_counter() - began)
            self._warm.add(talker)

    def _warm_up(self, talker: Portrayed) -> None:
        # Beside one another: compilation fills one core each.
        waiting: list[concurrent.futures.Future[Any]] = [self._in_stepper(self.motion.warm_up)]
        for _ in range(RENDER_THREADS):  # so that each of those is there, too
            waiting.append(self._submit("live-render", RENDER_THREADS, self._draw_rest, talker))
        for frame in FRAMES:
            Finisher(talker, frame, Payload()).rehearse()
        for future in waiting:
            future.result()

    def _draw_rest(self, talker: Portrayed) -> None:
        self.draw(talker, self.engine.rest(talker.appearance))

    def draw(self, talker: Portrayed, motion_M: np.ndarray) -> tuple[np.ndarray, float]:
        """The model's square uint8 for one row of driving motion, and the ms it took."""
        began = time.perf_counter()
        images = self.engine.draw(talker.appearance, motion_M[None])
        return images[0], (time.perf_counter() - began) * 1e3

    def close(self) -> None:
        """Lets the threads end; what waits for them is cancelled."""
        self._end_threads(cancel=True)

    def _in_stepper(self, function: Callable[[], T]) -> concurrent.futures.Future[T]:
        return self._submit("live-motion", 1, function)

    def _submit(
        self, name: str, threads: int, function: Callable[..., T], *args: Any
    ) -> concurrent.futures.Future[T]:
        with self._lock:
            if name not in self._pools:
                self._pools[name] = concurrent.futures.ThreadPoolExecutor(threads, name)
            return self._pools[name].submit(function, *args)

    def _end_threads(self, *, cancel: bool) -> None:
        with self._lock:
            pools, self._pools = self._pools, {}
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=cancel)


def live_engine(engine: Works, cfg: LiveConfig | None = None) -> LiveEngine:
    """The live engine of an engine and a configuration; made once."""
    cfg = cfg or LiveConfig()
    if cfg not in engine.live:
        engine.live[cfg] = LiveEngine(engine, cfg)
    return engine.live[cfg]
