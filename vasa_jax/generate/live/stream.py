"""Live talking: sound in at any pace, frames out on the sound's clock.

    async with talker.stream(pieces, rate=22050) as stream:   # any iterator of samples
        async for frame in stream:        # index, time, picture (uint8), sound, timings
            show(frame.picture)
    stream.ask(controls(gaze=(15, 0)))      # acts within a hop, while it speaks
    stream.interrupt()                    # silence from the next hop on

Without an iterator, ``push`` feeds the stream and ``finish`` ends it. ``tools/live_voice`` speaks
what a synthesiser says, while it says it.

*Warm-up.* Entering ``async with``, or else the first frame that is asked for, waits until all that
a frame needs is compiled and has run once (``LiveStream.ready``). Where that takes long the log
``vasa_jax.live`` says so; without a handler that goes to stderr. Clock and sound start after it, as
the first frame is asked for: an iterator is not asked before, what was pushed waits, and of a
microphone, whose sound is the present, it is dropped.

*The clock.* Frame n shows the samples [640 n, 640 (n + 1)) of the stream's timeline
(``generate/live/timeline.py``) and carries them. A hop is made when its sound and its look-ahead
were heard, so a frame comes at most ``latency_ms`` = (hop + look-ahead) * 40 ms, plus compute,
after its first sample. Sound pushed faster than real time waits its turn; where none comes for
``gap_ms`` silence takes its place, so that the face stays alive between utterances. With
``pace=False`` there is no clock: frames come as fast as they are made, and depend on the samples
alone, not on how they were cut.

*Threads.* Motion is stepped in one thread for all streams of a ``LiveEngine``, together where hops
wait at the same time; pictures are rendered in others; the event loop only hands things on.

*When late*, sound is never cut and never waits for pictures: from ``late_ms`` on only the first
picture of a hop is drawn, from ``lost_ms`` on none, and the motion rests, until time is made up. A
frame that was not drawn repeats the picture before it (``drawn`` is False). Of a microphone
(``microphone=True``) sound that waits for more than ``backlog_ms`` is dropped, since an answer that
late is worth less than the present. ``counts`` says how often each happened.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from vasa_jax.checkpoint.release import Release
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Controls
from vasa_jax.generate.controls import ControlTracks
from vasa_jax.generate.finish.arkit import speaking
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.live.engine import LiveConfig as LiveConfig
from vasa_jax.generate.live.engine import LiveEngine, Portrayed
from vasa_jax.generate.live.engine import live_engine as live_engine
from vasa_jax.generate.live.frames import LiveFrame as LiveFrame
from vasa_jax.generate.live.frames import Made
from vasa_jax.generate.live.motion import Heard
from vasa_jax.generate.live.pictures import Drawn, Finisher
from vasa_jax.generate.live.steering import Asked, Steering, checked_pose
from vasa_jax.generate.live.timeline import Timeline
from vasa_jax.provenance.payload import Payload

_log = logging.getLogger("vasa_jax.live")
FRAME_S = 1.0 / FPS
READY_FRAMES = 8  # made ahead of a reader that does not keep up; bounds memory
FADE_SAMPLES = 80  # 5 ms: an interrupted voice must not click


class Speaker(Portrayed, Protocol):
    """A portrait of a release, which the mark names."""

    @property
    def release(self) -> Release: ...


class LiveStream:
    """One portrait listening and speaking; an async iterator of ``LiveFrame``.

    Timings in ``frame.ms``: ``sound``, from the frame's first sample until all sound that its hop
    needs was due; ``late``, how long after that the hop was begun; ``motion`` and ``render``, what
    they took; ``total``, from the frame's first sample to its delivery (paced streams only).

    Opens a place of the engine at once (UserError when all are taken) and frees it when the
    iteration ends, by ``aclose`` (leaving ``async with``), or when the task that iterates is
    cancelled.
    """

    def __init__(
        self,
        live: LiveEngine,
        talker: Speaker,
        *,
        rate: int = SAMPLE_RATE_HZ,
        seed: int = 0,
        asked: Asked | None = None,
        frame: Literal["full", "crop"] = "full",
        pace: bool = True,
        microphone: bool = False,
        mark: bool = True,
        audio: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if frame not in ("full", "crop"):
            raise UserError(f"frame is full or crop, not {frame!r}")
        self.engine, self.talker, self.cfg = live, talker, live.cfg
        self.timeline = Timeline(rate)
        self.asked = asked or Asked()
        self.counts = {"frames": 0, "drawn": 0, "skipped": 0, "lost": 0, "filled": 0, "dropped": 0,
                       "interruptions": 0}  # fmt: skip
        self._steering = Steering(
            finish_for(live.motion.model.motion_space, seed=seed), asked=self.asked
        )
        self._heard = Heard(live.motion.model)
        self._clock, self._pace, self._microphone = clock, pace, microphone
        self._audio = audio
        self._began: float | None = None
        self._warm: asyncio.Future[Finisher] | None = None
        self.warmed_s = 0.0  # what the warm-up took
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._finished, self._expecting = False, False
        # (end of the timeline in frames, when it came to be there): tells late sound from late us
        self._arrivals: collections.deque[tuple[float, float]] = collections.deque()
        self._forget = False  # what was heard ahead was never said
        self._muted_until, self._fading = 0, False
        self._rendering: asyncio.Queue[Made | None] = asyncio.Queue(1)
        self._ready: asyncio.Queue[LiveFrame | BaseException | None] = asyncio.Queue(READY_FRAMES)
        self._tasks: list[asyncio.Task[None]] = []
        self._frame = frame
        self.payload = Payload.of(talker.release.sha256) if mark else None
        """What the invisible mark of the frames says; None when there is none."""
        self._last: np.ndarray | None = None
        self._place: int | None = live.motion.open(seed)

    # -- what the owner does ---------------------------------------------------------------------

    @property
    def latency_ms(self) -> float:
        return self.engine.latency_ms

    async def push(self, samples: np.ndarray) -> None:
        """More sound, mono at the stream's rate, any number of samples.

        Waits while more than ``buffer_s`` seconds lie ahead; of a microphone old sound is dropped.
        """
        limit = round(self.cfg.buffer_s * SAMPLE_RATE_HZ)
        while not self._microphone and self.timeline.waiting_samples > limit and not self._over:
            self._room.clear()
            await self._room.wait()
        self.push_nowait(samples)

    def push_nowait(self, samples: np.ndarray) -> None:
        """``push`` for callers that keep count themselves."""
        if self._finished:
            raise UserError("this stream was told that no more sound comes")
        self.timeline.push(samples)
        if self._microphone:
            # Nobody may be reading; what waits stays bounded all the same.
            most = self.engine.motion.frames + math.ceil(self.cfg.backlog_ms / 1e3 * FPS)
            if self.timeline.waiting > 2 * most:
                self._drop_all_but(most)
        self._expecting = True
        self._arrivals.append((self.timeline.end, self._clock()))
        self._changed.set()

    def end_utterance(self) -> None:
        """No more sound for now: silence follows without waiting for ``gap_ms``."""
        self.timeline.push(np.zeros(0, np.float32), last=True)
        self._expecting = False
        self._changed.set()

    def finish(self) -> None:
        """No more sound at all: the iteration ends after the frames of what waits."""
        if not self._finished:
            self.end_utterance()
            self._finished = True
            self._changed.set()

    def ask(
        self, controls: ControlTracks | None = None, *, pose: Sequence[float] | None = None
    ) -> None:
        """New controls, and a bias of the head's pose (yaw, pitch, roll in degrees).

        Both hold from the next hop on; None keeps what there is. Tracks count from now.
        """
        self.asked = Asked(
            controls=self.asked.controls if controls is None else controls,
            pose_deg=self.asked.pose_deg if pose is None else checked_pose(pose),
        )
        self._steering.ask(self.asked, frame=self.timeline.taken)

    def interrupt(self) -> int:
        """Nothing more is said of what was pushed; the first frame that knows nothing of it.

        Frames before that are already being made; they come, at most a hop when on time, and
        without sound. New sound may be pushed at once.
        """
        self.timeline.discard()
        self._arrivals.clear()
        self._forget, self._expecting = True, False
        self._muted_until, self._fading = self.timeline.taken, True
        self.counts["interruptions"] += 1
        self._changed.set()
        self._room.set()
        return self.timeline.taken

    async def ready(self) -> None:
        """Waits until all that a frame needs is compiled, or read from the cache, and has run.

        ``async with`` and the iteration do it by themselves; a second call returns at once. Raises
        UserError when the portrait can't be fitted.
        """
        await self._warmed()

    async def aclose(self) -> None:
        """Ends the stream at once and frees its place."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._release()

    async def __aenter__(self) -> LiveStream:
        try:
            await self.ready()
        except BaseException:  # then nobody calls __aexit__
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[LiveFrame]:
        return self

    async def __anext__(self) -> LiveFrame:
        if self._over:
            raise StopAsyncIteration
        try:
            if not self._tasks:
                self._start(await self._warmed())
            frame = await self._ready.get()
        except BaseException:
            await self.aclose()
            raise
        if frame is None:
            await self.aclose()
            raise StopAsyncIteration
        if isinstance(frame, BaseException):
            await self.aclose()
            raise frame
        return self._muted(frame)

    # -- what it does itself ---------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self._place is None

    def _release(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self.engine.leave(place)
        self._room.set()

    def __del__(self) -> None:
        place = getattr(self, "_place", None)
        if place is not None:  # no more than that: the collector may come at any moment
            self.engine.motion.close(place)

    async def _warmed(self) -> Finisher:
        if self._warm is None:
            self._warm = asyncio.get_running_loop().run_in_executor(None, self._warm_up)
        warm = self._warm
        try:
            return await asyncio.shield(warm)
        except asyncio.CancelledError:
            if not warm.done():
                _log.warning("stopped while warming up; the process ends when that is done")
            raise

    def _warm_up(self) -> Finisher:
        began = time.perf_counter()
        self.engine.warm_up(self.talker)
        finisher = Finisher(self.talker, self._frame, self.payload)
        self.warmed_s = time.perf_counter() - began
        return finisher

    def _start(self, finisher: Finisher) -> None:
        self._began = self._clock()
        if self._microphone and self._pace:
            self.counts["dropped"] += self.timeline.trim(0)
            self._arrivals.clear()
        jobs = [self._drive(), self._deliver(finisher)]
        if self._audio is not None:
            jobs.append(self._feed(self._audio))
        self._tasks = [asyncio.ensure_future(self._guard(job)) for job in jobs]

    async def _guard(self, job: Any) -> None:
        try:
            await job
        except Exception as error:  # the reader gets it in place of a frame
            await self._ready.put(error)

    async def _feed(self, audio: Any) -> None:
        if isinstance(audio, np.ndarray):
            audio = iter(np.array_split(audio, max(1, len(audio) // 4096)))
        if hasattr(audio, "__aiter__"):
            async for samples in audio:
                await self.push(np.asarray(samples))
        else:
            loop, pieces, end = asyncio.get_running_loop(), iter(audio), object()
            while (samples := await loop.run_in_executor(None, next, pieces, end)) is not end:
                await self.push(np.asarray(samples))
        self.finish()

    def _drop_all_but(self, frames: int) -> None:
        """Drops old sound; the clock is set so that what is left is the present."""
        self.counts["dropped"] += self.timeline.trim(frames)
        self._arrivals.clear()
        now = self._clock()
        self._arrivals.append((self.timeline.end, now))
        self._forget = True
        if self._began is not None:
            self._began = now - self.timeline.end * FRAME_S

    async def _due(self) -> int:
        """Waits until a hop can be begun; how many of its frames exist, 0 at the end."""
        hop, need = self.cfg.hop, self.engine.motion.frames
        assert self._began is not None
        while True:
            self._changed.clear()
            waiting, taken = self.timeline.waiting, self.timeline.taken
            now = self._clock()
            due = self._began + (taken + need) * FRAME_S if self._pace else now
            if self._microphone and self._pace:
                ahead_of_clock = self.timeline.end - (now - self._began) * FPS
                behind = self.timeline.waiting - need
                if max(ahead_of_clock, behind) * FRAME_S * 1e3 > self.cfg.backlog_ms:
                    self._drop_all_but(need)
                    continue
            if waiting >= need or self._finished:
                if now < due:
                    await self._pause(due - now)
                    continue
                left = math.ceil(self.timeline.waiting_samples / SAMPLES_PER_FRAME)
                return min(hop, left) if self._finished else hop
            if not self._pace:
                await self._changed.wait()
                continue
            limit = due + (self.cfg.gap_ms / 1e3 if self._expecting else 0.0)
            if now < limit:
                await self._pause(limit - now)
                continue
            before = self.timeline.filled
            self.timeline.fill(need)
            self.counts["filled"] += self.timeline.filled - before
            self._expecting = False
            self._arrivals.append((self.timeline.end, now))

    async def _pause(self, seconds: float) -> None:
        """Sleeps, at most until something changes."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _late_ms(self, end: int) -> float:
        """How long ago the hop whose sound ends at frame ``end`` could have begun."""
        if not self._pace:
            return 0.0
        due = self._began + end * FRAME_S  # type: ignore[operator]
        while self._arrivals and self._arrivals[0][0] < end:
            self._arrivals.popleft()
        came = self._arrivals[0][1] if self._arrivals else due
        return max(0.0, self._clock() - max(due, came)) * 1e3

    async def _drive(self) -> None:
        """Hop after hop: sound to motion, motion to the renderers."""
        cfg, motion, steering = self.cfg, self.engine.motion, self._steering
        need = motion.frames
        while count := await self._due():
            first, began = self.timeline.taken, self._began
            assert began is not None
            late = self._late_ms(first + need)
            if self._forget:
                self._heard.forget()
                self._forget = False
            real = np.arange(need) * SAMPLES_PER_FRAME < self.timeline.waiting_samples
            sound, said = self.timeline.look(need)
            controls = steering.rows(first, need)
            self.timeline.take(cfg.hop)
            self._room.set()
            lost = late > cfg.lost_ms
            valid = real if self._finished else np.ones(need, bool)
            made = await asyncio.wrap_future(
                self.engine.ask(self._place, self._heard, sound, valid, controls, skip=lost)
            )
            drawn = 0 if lost else 1 if late > cfg.late_ms else count
            rows = np.zeros((count, made.motion.shape[-1]), np.float32)
            if not lost:
                rows = steering.finish(
                    made.motion[:count],
                    Controls(*(np.asarray(x)[:count] for x in controls)),
                    speaking(made.loud, count),
                )
            pictures = [
                asyncio.wrap_future(self.engine.ask_picture(self.talker, rows[i]))
                if i < drawn
                else None
                for i in range(count)
            ]
            self.counts["lost"] += count if lost else 0
            self.counts["skipped"] += 0 if lost else count - drawn
            ms = {"late": late, "motion": made.ms, "shared": float(made.shared)}
            await self._rendering.put(Made(first, began, rows, sound, said, pictures, ms))
        await self._rendering.put(None)

    async def _deliver(self, finisher: Finisher) -> None:
        """Pictures in their order, pasted, with their sound and timings."""
        while (made := await self._rendering.get()) is not None:
            finished = finisher.begin(made.pictures)
            try:
                await self._deliver_hop(made, finished, finisher)
            finally:
                for task in filter(None, finished):
                    task.cancel()
        await self._ready.put(None)

    async def _deliver_hop(
        self, made: Made, finished: list[asyncio.Task[Drawn] | None], finisher: Finisher
    ) -> None:
        need = self.engine.motion.frames
        for i, task in enumerate(finished):
            render = 0.0
            if task is not None:
                self._last, render = await task
            if self._last is None:  # late before the first picture
                self._last = finisher.portrait()
            index = made.first + i
            ms = made.ms | {"sound": (need - i) * FRAME_S * 1e3, "render": render}
            if self._pace:
                ms["total"] = (self._clock() - made.began - index * FRAME_S) * 1e3
            drawn = task is not None
            self.counts["frames"] += 1
            self.counts["drawn"] += drawn
            await self._ready.put(
                LiveFrame(
                    index=index, picture=self._last, sound=made.sound[i], drawn=drawn,
                    speaking=bool(made.said[i]), motion=made.rows[i], ms=ms,
                )
            )  # fmt: skip

    def _muted(self, frame: LiveFrame) -> LiveFrame:
        """The frame without the sound of an utterance that was interrupted."""
        if frame.index >= self._muted_until:
            return frame
        sound = np.zeros_like(frame.sound)
        if self._fading:
            sound[:FADE_SAMPLES] = frame.sound[:FADE_SAMPLES] * np.linspace(1, 0, FADE_SAMPLES)
        self._fading = False
        return dataclasses.replace(frame, sound=sound, speaking=False)
