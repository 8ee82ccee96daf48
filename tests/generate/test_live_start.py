"""How a live stream begins: warm before its clock starts, so that its first frame is drawn."""

import asyncio
import functools
import logging
import re
import textwrap
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.errors import UserError
from vasa_jax.generate.engine import _engines, engine_for
from vasa_jax.generate.live import engine as live_engines
from vasa_jax.generate.live import stream as realtime
from vasa_jax.generate.live.stream import LiveConfig, LiveStream
from vasa_jax.generate.talker import Talker

pytestmark = pytest.mark.usefixtures("broadcasting")
README = Path(__file__).parents[2] / "README.md"
LIVE = LiveConfig()
SLOWLY = 20.0  # the streams' clocks beside the wall's: a busy machine makes no frame late
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))


@pytest.fixture
def slow_clock(monkeypatch):
    clock = functools.partial(LiveStream, clock=lambda: time.monotonic() / SLOWLY)
    monkeypatch.setattr(realtime, "LiveStream", clock)


@pytest.fixture(scope="module")
def talker(release):
    return Talker(release, drawn_face(200))


@pytest.fixture
def compiled():
    """When this process compiled something."""
    times = []

    def listen(event, duration, **unused):
        if event == COMPILED:
            times.append(time.monotonic())

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield times
    jax.monitoring.unregister_event_duration_listener(listen)


def snippet() -> str:
    """README's lines of Python that talk live."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (found,) = [block for block in blocks if "talker.stream(" in block]
    return found


def speech(frames, rate=16_000):
    count = frames * rate // 25
    return np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)


def test_readmes_live_lines_draw_every_frame_from_the_first_on(
    talker, slow_clock, compiled, monkeypatch, caplog
):
    """The first in this file, for which nothing is compiled yet; nothing may be on the clock."""
    monkeypatch.setattr(live_engines, "SAID_AFTER_S", 0.0)
    caplog.set_level(logging.WARNING, "vasa_jax.live")
    streams, shown, began, asked = [], [], [], []
    start = LiveStream._start

    def starting(self, *args):
        streams.append(self)
        began.append(time.monotonic())
        start(self, *args)

    def said():
        for piece in np.array_split(speech(14, 22_050), 9):
            asked.append(time.monotonic())
            yield piece

    monkeypatch.setattr(LiveStream, "_start", starting)
    given = {"talker": talker, "pieces": said(), "show": shown.append}
    exec(f"async def lines():\n{textwrap.indent(snippet(), '    ')}", given)
    asyncio.run(given["lines"]())
    (stream,), (start_time,) = streams, began
    counts = stream.counts
    assert counts["drawn"] == counts["frames"] == len(shown) == 14
    assert counts["skipped"] == counts["lost"] == counts["dropped"] == 0
    assert max(compiled, default=0.0) < start_time < min(asked)
    assert any((a != b).any() for a, b in zip(shown, shown[1:], strict=False))
    assert "warming up" in caplog.text and 0 < stream.warmed_s


def test_without_async_with_the_first_frame_asked_for_warms_up(talker, slow_clock):
    async def play():
        stream = talker.stream(speech(5), frame="crop")
        assert stream.warmed_s == 0
        return [frame async for frame in stream], stream

    frames, stream = asyncio.run(play())
    assert [frame.drawn for frame in frames] == [True] * 5 and stream.warmed_s > 0


@pytest.fixture
def held(talker, monkeypatch):
    """A warm-up that lasts until the event is set."""
    live, event = realtime.live_engine(talker.engine, LIVE), threading.Event()
    live.warm_up(talker)
    warm_up = live.warm_up

    def waiting(talker):
        assert event.wait(30)
        warm_up(talker)

    monkeypatch.setattr(live, "warm_up", waiting)
    yield event
    event.set()


@pytest.mark.parametrize("microphone", [False, True])
def test_sound_that_comes_meanwhile_waits_unless_it_is_the_present(
    talker, slow_clock, held, microphone
):
    async def play():
        stream = talker.stream(frame="crop", microphone=microphone)
        first = asyncio.ensure_future(anext(stream))
        ticks = 0
        for _ in range(8):  # the loop goes on
            await asyncio.sleep(0.01)
            await stream.push(speech(1))
            ticks += 1
        assert not first.done() and stream.timeline.taken == 0
        held.set()
        frame = await first
        if microphone:
            assert not frame.speaking and stream.counts["dropped"] == 8 * 640
        else:
            assert frame.speaking and stream.counts["dropped"] == 0
            np.testing.assert_array_equal(frame.sound, speech(1))
        assert frame.drawn
        await stream.aclose()
        return ticks

    assert asyncio.run(play()) == 8


def test_a_stream_left_while_it_warms_up_frees_its_place_and_says_why_it_waits(
    talker, held, caplog
):
    live = realtime.live_engine(talker.engine, LIVE)

    async def play():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async with talker.stream(frame="crop"):
                    raise AssertionError("it is not warm")
        assert live.motion.taken == 0
        held.set()

    asyncio.run(play())
    assert "stopped while warming up" in caplog.text


def test_a_portrait_that_cannot_be_prepared_is_told_before_the_clock(talker, monkeypatch):
    live = realtime.live_engine(talker.engine, LIVE)

    def broken(talker):
        raise UserError("no head fits")

    monkeypatch.setattr(live, "warm_up", broken)

    async def enter():
        async with talker.stream():
            pass

    with pytest.raises(UserError, match="no head fits"):
        asyncio.run(enter())
    with pytest.raises(UserError, match="no head fits"):
        asyncio.run(anext(talker.stream()))
    assert live.motion.taken == 0


def test_a_second_warm_up_does_nothing_and_another_portrait_little(talker, compiled, monkeypatch):
    live = realtime.live_engine(talker.engine, LIVE)
    live.warm_up(talker)
    drawn, stepped = [], []
    draw, step = live.draw, live.motion._advance
    monkeypatch.setattr(live, "draw", lambda *args: drawn.append(args) or draw(*args))
    monkeypatch.setattr(live.motion, "_advance", lambda *a: stepped.append(a) or step(*a))
    compiled.clear()
    live.warm_up(talker)
    assert not drawn and not compiled
    live.warm_up(Talker(talker.release, drawn_face(200)))
    assert drawn and not stepped and not compiled  # the same size: even its mark is there


def test_the_warm_up_leaves_streams_that_run_as_they_are(talker):
    """Between two hops of a stream another engine's first step would be made."""
    live = realtime.live_engine(talker.engine, LIVE)

    async def play(disturbed):
        rows = []
        async with talker.stream(speech(8), frame="crop", pace=False, seed=4) as stream:
            async for frame in stream:
                rows.append(frame.motion)
                if disturbed:
                    live.motion._warm = False
                    live._in_stepper(live.motion.warm_up).result()
        return np.stack(rows)

    np.testing.assert_array_equal(asyncio.run(play(True)), asyncio.run(play(False)))


def test_threads_of_an_engine_that_was_replaced_end_with_its_last_stream(talker, tmp_path):
    live = realtime.live_engine(talker.engine, LIVE)
    live.close()
    before, other = set(threading.enumerate()), tiny_release(tmp_path / "other", {"steps": 3})

    def mine():
        names = ("live-motion", "live-render")
        return [t for t in set(threading.enumerate()) - before if t.name.startswith(names)]

    def ended():
        for thread in mine():
            thread.join(10)
        return not mine()

    def current():
        _engines.clear()
        _engines[talker.release.sha256] = talker.engine
        talker.engine.retired = False

    async def play(replace):
        async with talker.stream(speech(6), frame="crop", pace=False) as stream:
            frames = [await anext(stream)]
            if replace:
                engine_for(other)
            return frames + [frame async for frame in stream]

    current()
    assert len(asyncio.run(play(False))) == 6 and mine()
    engine_for(other)
    assert ended()
    current()
    # In the middle of a stream: it goes on, and takes its threads with it.
    assert len(asyncio.run(play(True))) == 6 and ended()
    # The talker is no worse for it.
    assert len(asyncio.run(play(False))) == 6 and ended()
    current()
