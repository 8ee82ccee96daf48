"""The live loop with a tiny release: real nets, real threads, real clocks."""

import asyncio
import concurrent.futures
import dataclasses
import gc

import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import FACE, tiny_release
from vasa_jax.audio import features as audio_features
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import GAZE, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import ARKIT
from vasa_jax.core.types import Controls
from vasa_jax.generate import talker as talkers
from vasa_jax.generate.controls import controls
from vasa_jax.generate.engine import Engine
from vasa_jax.generate.finish.arkit import loud_frames
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.live import stream as realtime
from vasa_jax.generate.live.engine import LiveEngine
from vasa_jax.generate.live.motion import Heard, Hop
from vasa_jax.generate.live.steering import Asked, Steering
from vasa_jax.generate.live.stream import LiveConfig, LiveStream
from vasa_jax.generate.live.timeline import Timeline
from vasa_jax.generate.offline import generate_motion, speech_features
from vasa_jax.generate.talker import Talker

pytestmark = pytest.mark.usefixtures("broadcasting")
LIVE = LiveConfig(steps=2, places=2)
HOP = LIVE.hop


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    release = load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))
    made = Talker(release, drawn_face(200))
    realtime.live_engine(made.engine, LIVE).warm_up(made)
    return made


def speech(frames, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, 640 * frames).astype(np.float32)


def run(talker, audio, *, live=LIVE, **options):
    async def collect():
        options.setdefault("pace", False)
        stream = talker.stream(audio, live=live, frame="crop", **options)
        return [f async for f in stream], stream

    return asyncio.run(collect())


def live_motion(live, said_TS, controls, seed):
    """Motion of one stream, hop after hop, and the features that it made of the whole."""
    motion = live.motion
    place, heard, whole = motion.open(seed), Heard(motion.model), Heard(motion.model)
    made, total = [], len(said_TS)
    # After the end nothing is asked for any more, as offline.
    controls = Controls(*(np.concatenate(x) for x in zip(
        controls, Controls.none(motion.frames), strict=True)))  # fmt: skip
    for start in range(0, total, HOP):
        part = np.zeros((motion.frames, 640), np.float32)
        real = said_TS[start : start + motion.frames]
        part[: len(real)] = real
        valid = np.arange(motion.frames) < len(real)
        wanted = Controls(*(x[start : start + motion.frames] for x in controls))
        made.append(live.ask(place, heard, part, valid, wanted).result().motion)
    motion.close(place)
    return np.concatenate(made)[:total], whole.features(said_TS)


def offline_motion(engine, cfg, features, controls, seed):
    """The same hops in one scan, guided as the release says."""
    defaults = engine.defaults
    return generate_motion(
        engine.motion_config, engine.motion_params, engine.stats, features, controls, seed=seed,
        sampler=defaults.sampler, steps=cfg.steps, hop=cfg.hop, ahead=cfg.ahead,
        guidance=defaults.guidance, temperature=defaults.temperature,
    )  # fmt: skip


def test_motion_equals_the_offline_scan_bit_for_bit_for_the_same_hops(talker):
    """One place: the batch of offline. The features are the ones that the stream made."""
    engine = talker.engine
    live = realtime.live_engine(engine, dataclasses.replace(LIVE, places=1))
    said, free = speech(9).reshape(9, 640), Controls.none(9)
    made, features = live_motion(live, said, free, seed=3)
    cfg = live.motion.model.features
    np.testing.assert_allclose(
        features, audio_features.features(cfg, said.reshape(1, -1))[0], atol=2e-4
    )
    np.testing.assert_array_equal(made, offline_motion(engine, live.rolling, features, free, 3))


def test_every_condition_that_a_release_guides_is_guided_live_as_offline(tmp_path):
    guided = {"audio": 0.5, "gaze": 1.0, "past": 0.3, "distance": 0.8, "emotion": 0.6}
    release = load_release(tiny_release(tmp_path / "guided", {"guidance": guided, "steps": 2}))
    engine = Engine(release)
    live = LiveEngine(engine, LiveConfig())
    assert set(live.rolling.guided) == set(guided)
    asked = controls(gaze=(20, -5), distance=0.8, emotion={"happy": 1.0})
    said, all_along = speech(9).reshape(9, 640), asked.rows(9)
    late = Controls(*(np.where(_rows(9, x) >= 4, x, 0) for x in all_along))  # comes on the way
    late = late._replace(distance=np.asarray(all_along.distance))
    made = {}
    cases = {"free": Controls.none(9), "asked": all_along, "late": late,
             "gaze": controls(gaze=(20, -5)).rows(9)}  # fmt: skip
    for name, rows in cases.items():
        made[name], features = live_motion(live, said, rows, seed=3)
        expected = offline_motion(engine, live.rolling, features, rows, 3)
        np.testing.assert_array_equal(made[name], expected, err_msg=name)
    live.close()
    for name in ("asked", "late", "gaze"):
        assert np.abs(made[name] - made["free"]).max() > 1e-4, name


def _rows(count, like):
    return np.arange(count).reshape(count, *(1,) * (np.ndim(like) - 1))


def test_the_finished_motion_of_a_recording_is_a_stream_s_bit_for_bit(talker, monkeypatch):
    """With one place and the same hops: ``Talker.motion`` beside ``Talker.stream``."""
    live, said = dataclasses.replace(LIVE, places=1), speech(40)
    said[640 * 8 : 640 * 25] *= np.float32(1e-5)  # long enough for lips to close
    rolling = realtime.live_engine(talker.engine, live).rolling
    heard = Heard(talker.engine.motion_config).features(said.reshape(-1, 640))
    loud = loud_frames(audio_features.power_db(talker.engine.motion_config.features, heard))
    assert 0.3 < loud.mean() < 0.8

    def same_hops(*given, **options):
        return generate_motion(*given, hop=rolling.hop, ahead=rolling.ahead, **options)

    monkeypatch.setattr(talkers, "generate_motion", same_hops)
    monkeypatch.setattr(talkers, "speech_features", lambda model, samples: heard)
    moving = controls(gaze=[[0, 20, -5], [1.5, -20, 5]], distance=0.8, emotion={"happy": 0.7})
    made = {}
    for name, asked in {"free": controls(), "asked": moving}.items():
        frames, _ = run(talker, said, live=live, controls=asked, seed=3)
        made[name] = talker.motion(said, controls=asked, seed=3, steps=LIVE.steps)
        # The last hop looks at what is asked for after the end; of a recording that is nothing.
        same = len(heard) if name == "free" else len(heard) - HOP
        streamed = np.stack([f.motion for f in frames])
        np.testing.assert_array_equal(streamed[:same], made[name][:same], name)
    assert np.abs(made["asked"] - made["free"]).max() > 0.1
    np.testing.assert_allclose(np.degrees(made["asked"][0, GAZE]), [20, -5], atol=1e-3)


def test_any_cut_of_the_sound_gives_the_same_frames(talker):
    said = speech(13)[:-100]
    whole, _ = run(talker, said, seed=5)
    assert [f.index for f in whole] == list(range(13))
    np.testing.assert_array_equal(np.concatenate([f.sound for f in whole])[: len(said)], said)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(said), 20))
    for pieces in (np.split(said, cuts), [said[:1], said[1:]]):
        frames, stream = run(talker, iter(pieces), seed=5)
        assert stream.counts["frames"] == stream.counts["drawn"] == 13
        for a, b in zip(whole, frames, strict=True):
            np.testing.assert_array_equal(a.motion, b.motion)
            np.testing.assert_array_equal(a.picture, b.picture)
    assert whole[0].picture.shape == (FACE.size, FACE.size, 3)
    other, _ = run(talker, said, seed=6)
    assert (other[3].motion != whole[3].motion).any()


def test_sound_of_another_rate_keeps_its_length(talker):
    seconds = 0.5
    tone = np.sin(np.arange(int(44100 * seconds)) * 0.05).astype(np.float32)
    frames, _ = run(talker, np.array_split(tone, 7), rate=44100)
    assert abs(len(frames) - seconds * 25) <= 1
    frames, _ = run(talker, [(speech(5) * 3e4).astype(np.int16)])
    assert 0.05 < np.concatenate([f.sound for f in frames]).std() < 0.2


def test_frames_come_on_the_clock_and_silence_fills_what_is_missing(talker):
    async def play():
        async with talker.stream(live=LIVE, frame="crop") as stream:
            loop, got = asyncio.get_running_loop(), []
            began = loop.time()
            async for frame in stream:
                got.append((loop.time() - began, frame))
                if len(got) == 4:  # all at once, as a synthesiser does
                    await stream.push(speech(8))
                    stream.end_utterance()
                if len(got) == 36:
                    return got, stream.counts

    got, counts = asyncio.run(play())
    for at, frame in got:
        assert at >= frame.index / 25  # never before its sound
    said = [frame.speaking for _, frame in got]
    first = said.index(True)
    assert (
        4 <= first <= 4 + 3 * HOP + realtime.READY_FRAMES and said[first : first + 8] == [True] * 8
    )
    assert not any(said[first + 9 :]) and counts["filled"] > 0
    assert [frame.index for _, frame in got] == list(range(36))
    assert {"sound", "late", "motion", "render", "total"} <= set(got[0][1].ms)


def test_interruption_is_silence_from_the_next_hop_on(talker):
    async def play():
        async with talker.stream(live=LIVE, frame="crop") as stream:
            await stream.push(speech(100))
            got, silent = [], None
            async for frame in stream:
                got.append(frame)
                if len(got) == 8:
                    shown = frame.index
                    silent = stream.interrupt()
                if len(got) == 24:
                    return got, shown, silent

    got, shown, silent = asyncio.run(play())
    assert all(np.abs(f.sound).max() > 0.05 for f in got[:8])
    # Not a sample of the old sound after a fade of 5 ms, though a started hop still comes.
    assert np.abs(got[8].sound[100:]).max() == 0
    assert all(not np.abs(f.sound).any() for f in got[9:])
    assert silent - (shown + 1) <= 3 * HOP  # given out, rendered, stepped: a hop each at most
    assert got[-1].index == 23  # the face goes on


def test_who_takes_a_place_while_its_last_hop_is_made_starts_afresh(talker):
    """A stream leaves and another comes in the middle of the step that serves the first."""
    live = realtime.live_engine(talker.engine, dataclasses.replace(LIVE, places=1))
    motion, said = live.motion, speech(3)[: 640 * live.motion.frames].reshape(-1, 640)
    valid, free = np.ones(motion.frames, bool), Controls.none(motion.frames)

    def hop(place, heard):
        return live.ask(place, heard, said, valid, free).result()

    place = motion.open(7)
    expected = hop(place, Heard(motion.model)).motion
    motion.close(place)

    class Leaving(Heard):
        def features(self, samples):
            motion.close(place)
            assert motion.open(7) == place
            return super().features(samples)

    place = motion.open(1)
    hop(place, Leaving(motion.model))
    np.testing.assert_array_equal(hop(place, Heard(motion.model)).motion, expected)
    motion.close(place)


def test_what_was_heard_ahead_can_be_forgotten(talker):
    model = talker.engine.motion_config
    said, other = speech(5).reshape(5, 640), speech(5, seed=1).reshape(5, 640)
    heard, fresh = Heard(model), Heard(model)
    heard.features(said)
    heard.advance(2)
    heard.forget()
    expected = fresh.features(np.concatenate([said[:2], other[:3]]))[2:]
    np.testing.assert_array_equal(heard.features(other[:3]), expected)


def test_controls_and_pose_act_while_it_runs(talker):
    async def interleaved():
        async with talker.stream(live=LIVE, frame="crop", pace=False, seed=1) as stream:
            await stream.push(speech(60))
            rows = []
            async for frame in stream:
                rows.append(frame.motion)
                if len(rows) == 4:
                    stream.ask(controls(gaze=(20, -10), distance=0.8), pose=(10, 0, 0))
                if len(rows) == 56:
                    return np.stack(rows)

    moved = asyncio.run(interleaved())
    plain, _ = run(talker, speech(60), seed=1)
    gaze = np.degrees(moved[-15:, 7:9].mean(0))
    np.testing.assert_allclose(gaze, [20, -10], atol=2.0)
    assert moved[-15:, MOTION_INDEX["log_scale"]].mean() == pytest.approx(-np.log(0.8), abs=0.05)
    np.testing.assert_array_equal(moved[:4], np.stack([f.motion for f in plain])[:4])
    yaw = moved[-15:, 0].mean() - np.stack([f.motion for f in plain])[41:56, 0].mean()
    assert np.degrees(yaw) > 5
    with pytest.raises(UserError, match="pose"):
        talker.stream(live=LIVE, pose=(90, 0, 0))


def test_places_are_shared_and_freed(talker):
    live = realtime.live_engine(talker.engine, LIVE)
    assert live.motion.taken == 0

    async def crowd():
        first, second = (talker.stream(live=LIVE, frame="crop", pace=False, seed=s) for s in (1, 2))
        with pytest.raises(UserError, match="2 places"):
            talker.stream(live=LIVE)
        for stream in (first, second):
            await stream.push(speech(6))
            stream.finish()
        both = await asyncio.gather(*[_all(s) for s in (first, second)])
        assert live.motion.taken == 0
        # A task that is torn away in the middle, ten times.
        for _ in range(10):
            stream = talker.stream(live=LIVE, frame="crop")
            reader = asyncio.ensure_future(_all(stream))
            await asyncio.sleep(0.03)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        talker.stream(live=LIVE)  # nobody ever looks at it
        gc.collect()
        assert live.motion.taken == 0
        return both

    both = asyncio.run(crowd())
    for seed, frames in zip((1, 2), both, strict=True):
        alone, _ = run(talker, speech(6), seed=seed)
        for a, b in zip(alone, frames, strict=True):
            np.testing.assert_allclose(a.motion, b.motion, atol=1e-5)


async def _all(stream):
    return [frame async for frame in stream]


def test_an_error_in_the_sound_reaches_the_reader_and_frees_the_place(talker):
    def broken():
        yield speech(4)
        raise OSError("the synthesiser fell over")

    for audio, error in ((broken(), OSError), ([np.zeros((4, 2))], UserError)):
        with pytest.raises(error):
            run(talker, audio)
    assert realtime.live_engine(talker.engine, LIVE).motion.taken == 0


def test_late_pictures_are_skipped_and_the_sound_is_whole(talker, monkeypatch):
    live = realtime.live_engine(talker.engine, LIVE)
    real = live.draw

    def slow(*args):
        import time

        time.sleep(0.12)
        return real(*args)

    monkeypatch.setattr(live, "draw", slow)
    said = speech(30)
    frames, stream = run(talker, said, pace=True)
    np.testing.assert_array_equal(np.concatenate([f.sound for f in frames]), said)
    counts = stream.counts
    assert counts["drawn"] + counts["skipped"] + counts["lost"] == counts["frames"] == 30
    assert counts["skipped"] > 0 and 0 < counts["drawn"] < 30
    held = [i for i, f in enumerate(frames) if not f.drawn and i]
    assert all((frames[i].picture == frames[i - 1].picture).all() for i in held)


def test_a_microphone_that_runs_ahead_loses_the_oldest_sound(talker):
    async def play():
        async with talker.stream(live=LIVE, frame="crop", microphone=True) as stream:
            await stream.push(speech(60))
            first = await anext(stream)
            await stream.push(speech(60, seed=1))
            for _ in range(4):
                last = await anext(stream)
            return first, last, stream.counts, stream.timeline.waiting

    *_, counts, waiting = asyncio.run(play())
    assert counts["dropped"] > 640 * 60 and waiting < 60


def test_a_full_buffer_makes_push_wait(talker):
    live = dataclasses.replace(LIVE, buffer_s=0.5)

    async def play():
        async with talker.stream(live=live, frame="crop") as stream:
            await stream.push(speech(40))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.push(speech(1)), 0.1)
            stream.interrupt()
            await asyncio.wait_for(stream.push(speech(1)), 1.0)

    asyncio.run(play())


def test_steering_lets_go_gently():
    asked = Asked(controls=controls(gaze=(30, 0)))
    steering = Steering(finish_for(ARKIT, seed=0), asked=asked)
    still, rows = np.zeros((50, 54), np.float32), []
    rows.append(steering.finish(still, steering.rows(0, 50), [True] * 50))
    steering.ask(Asked(), frame=50)
    rows.append(steering.finish(still, steering.rows(50, 50), [True] * 50))
    yaw = np.degrees(np.concatenate(rows)[:, 7])
    assert yaw[49] == pytest.approx(30, abs=0.5) and abs(yaw[-1]) < 0.5
    assert np.abs(np.diff(yaw)).max() < 8  # no jump


def test_a_timeline_is_what_was_pushed():
    timeline = Timeline()
    timeline.push(np.full(700, 0.5))
    timeline.fill(2)
    samples, said = timeline.look(2)
    assert said.tolist() == [True, True] and samples.sum() == 350 and timeline.filled == 580
    timeline.take(1)
    assert timeline.discard() == 60 and timeline.end == 1
    with pytest.raises(UserError, match="Hz"):
        Timeline(4000)
    timeline.push(np.array([np.nan, np.inf, 7.0]))
    timeline.fill(1)
    assert timeline.look(1)[0][0, :3].tolist() == [0, 0, 1]


def test_a_stream_wants_a_known_frame(talker):
    with pytest.raises(UserError, match="full or crop"):
        talker.stream(live=LIVE, frame="half")
    assert isinstance(talker.stream(live=LIVE), LiveStream)


def test_features_of_a_quiet_stream_with_an_offset_are_those_of_the_file(talker):
    """Also after sound that was heard ahead was taken back."""
    model = talker.engine.motion_config
    gaps = np.repeat(np.random.default_rng(1).uniform(0, 1, 60) > 0.4, 640)
    said = (0.02 * gaps * speech(60) + 0.1).astype(np.float32)
    whole = speech_features(model, said)
    heard, rows = Heard(model), []
    for start in range(0, 60, HOP):
        ahead = np.zeros((HOP + 2, 640), np.float32)
        part = said[start * 640 : (start + HOP + 2) * 640].reshape(-1, 640)
        ahead[: len(part)] = part
        heard.features(np.full_like(ahead, 0.5))
        heard.forget()
        rows.append(heard.features(ahead)[:HOP])
        heard.advance(HOP)
    np.testing.assert_allclose(np.concatenate(rows)[:60], whole, atol=2e-4)


def test_a_microphone_s_offset_or_level_does_not_decide_where_somebody_speaks(talker):
    """The lips close where nobody speaks, live; once by raw power."""
    live = realtime.live_engine(talker.engine, LIVE)
    said = np.repeat(np.arange(64) % 16 < 8, 640).astype(np.float32) * speech(64)
    frames = live.motion.frames

    def loud(sound):
        place, heard, out = live.motion.open(0), Heard(live.motion.model), []
        for start in range(0, 64 - frames, HOP):
            part = sound[start * 640 : (start + frames) * 640].reshape(frames, 640)
            controls = Controls.none(frames)
            hop = live.ask(place, heard, part, np.ones(frames, bool), controls, skip=True).result()
            out.append(hop.loud[:HOP])
        live.motion.close(place)
        return np.concatenate(out)

    expected = np.arange(64) % 16 < 8
    for sound in (said, said + np.float32(0.3), said * np.float32(0.01)):
        got = loud(sound)[32:]
        assert (got == expected[32 : 32 + len(got)]).mean() > 0.9


@pytest.mark.slow
def test_sound_and_frames_keep_together_for_ten_hours(talker, monkeypatch):
    """The loop itself; motion and pictures are stood in for, or it would take ten hours."""
    live, rate, every, hours = realtime.live_engine(talker.engine, LIVE), 44_100, 10, 10
    picture, motion = np.zeros((8, 8, 3), np.uint8), np.zeros((HOP, 54), np.float32)

    def ask(*args, **options):
        future = concurrent.futures.Future()
        future.set_result(Hop(motion, np.ones(len(args[2]), bool), 0.0, 1))
        return future

    monkeypatch.setattr(live, "ask", ask)
    monkeypatch.setattr(live, "draw", lambda talker, motion_M: (picture, 0.0))

    def clicks():
        for _ in range(hours * 3600 // every):
            piece = np.zeros(every * rate, np.float32)
            piece[rate] = 1.0  # one second into it
            yield piece

    async def play():
        heard, frames = [], 0
        stream = talker.stream(clicks(), rate=rate, pace=False, live=LIVE, frame="crop", mark=False)
        async for frame in stream:
            frames += 1
            at = int(np.abs(frame.sound).argmax())
            if abs(frame.sound[at]) > 0.15:
                heard.append(frame.time + at / 16_000)
        return np.array(heard), frames

    heard, frames = asyncio.run(play())
    expected = np.arange(hours * 3600 // every) * every + 1.0
    assert frames == hours * 3600 * 25
    assert np.abs(heard - expected).max() < 1e-3  # seconds, from the first to the last
