"""What live streams of one engine share: how they run, the thread that steps, those that render."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from vasa_jax.core.types import SAMPLES_PER_FRAME, Controls
from vasa_jax.generate.live_motion import Heard, Hop, LiveMotion
from vasa_jax.generate.rolling import RollingConfig

if TYPE_CHECKING:
    from vasa_jax.generate.engine import Engine
    from vasa_jax.generate.talker import Talker

RENDER_THREADS = 2


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


class LiveEngine:
    """The threads and the compiled step that streams share."""

    def __init__(self, engine: Engine, cfg: LiveConfig | None = None):
        self.cfg = cfg = cfg or LiveConfig()
        self.engine = engine
        quick = cfg.steps is None
        params = engine.quick_params if quick else engine.motion_params
        defaults = engine.quick_defaults if quick else engine.defaults
        scales = {n: float(s) for n, s in defaults.guidance.items() if s and n == "audio"}
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
        self._stepper = concurrent.futures.ThreadPoolExecutor(1, "live-motion")
        self.renderers = concurrent.futures.ThreadPoolExecutor(RENDER_THREADS, "live-render")

    @property
    def latency_ms(self) -> float:
        """Declared: from a sound to the frame that shows it, at most, compute excluded."""
        return self.rolling.latency_ms(self.motion.model)

    def ask(self, *args: Any, **options: Any) -> concurrent.futures.Future[Hop]:
        """``LiveMotion.ask``, and sees to it that the step is made."""
        future = self.motion.ask(*args, **options)
        self._stepper.submit(self.motion.run_waiting)
        return future

    def warm_up(self, talker: Talker) -> None:
        """Compiles, or reads from the cache, all that a stream of ``talker`` runs."""
        place = self.motion.open(0)
        try:
            frames = self.motion.frames
            silence = np.zeros((frames, SAMPLES_PER_FRAME), np.float32)
            hop = self.ask(
                place, Heard(self.motion.model), silence, np.ones(frames, bool),
                Controls.none(frames),
            ).result()  # fmt: skip
            self.draw(talker, hop.motion[0])
            talker.marker("full"), talker.marker("crop")
        finally:
            self.motion.close(place)

    def draw(self, talker: Talker, motion_M: np.ndarray) -> tuple[np.ndarray, float]:
        """The model's square uint8 for one row of driving motion, and the ms it took."""
        began = time.perf_counter()
        engine = self.engine
        images = engine.render(
            engine.face_params, engine.autoencoder.head, talker.appearance, motion_M[None]
        )
        return np.asarray(images)[0], (time.perf_counter() - began) * 1e3

    def close(self) -> None:
        """Lets the threads end."""
        self._stepper.shutdown(wait=False, cancel_futures=True)
        self.renderers.shutdown(wait=False, cancel_futures=True)


def live_engine(engine: Engine, cfg: LiveConfig | None = None) -> LiveEngine:
    """The live engine of an engine and a configuration; made once."""
    cfg = cfg or LiveConfig()
    if cfg not in engine.live:
        engine.live[cfg] = LiveEngine(engine, cfg)
    return engine.live[cfg]
