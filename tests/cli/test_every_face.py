"""A tiny release of each face goes through every verb that opens one.

Training, of a motion model and of a student, is in tests/train; ``inspect`` takes configurations.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import numpy as np
import pytest
import soundfile

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import tiny_release
from tests.serve.serving import png, serving
from vasa_jax.audio import features as audio_features
from vasa_jax.bench import floor
from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli.main import main
from vasa_jax.core.types import Controls
from vasa_jax.face.faces import FACES
from vasa_jax.generate.engine import Engine
from vasa_jax.generate.finish.arkit import loud_frames, speaking
from vasa_jax.generate.finish.finish import finish_for
from vasa_jax.generate.live.engine import LiveConfig
from vasa_jax.generate.offline import generate_motion, roll_chunk
from vasa_jax.generate.rolling import live_step
from vasa_jax.generate.talker import Talker
from vasa_jax.io.image import write_image

pytestmark = pytest.mark.usefixtures("broadcasting")

HOW = {"steps": 2, "sampler": "ddim", "guidance": {"audio": 0.5}}


@pytest.fixture(scope="module", params=list(FACES))
def inputs(request, tmp_path_factory):
    """A release, and a face and a sound for it."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny_release(folder / "tiny", HOW, kind=request.param)
    write_image(folder / "face.png", drawn_face(240))
    noise = np.random.default_rng(0).normal(0, 0.1, 9600).astype(np.float32)
    soundfile.write(folder / "speech.wav", noise, 16_000)
    return folder, load_release(folder / "tiny"), noise


@pytest.fixture(scope="module")
def talker(inputs):
    return Talker(inputs[1], drawn_face(240))


def test_generate_in_both_frames(inputs, tmp_path, capsys):
    if inputs[1].config["face"]["kind"] == "warp":
        pytest.skip("tests/cli/test_generate.py")
    folder, release, _ = inputs
    given = [str(folder / "face.png"), str(folder / "speech.wav"), "--release", str(release.path)]
    sizes = {"full": [240, 240], "crop": [Engine(release).size] * 2}
    for frame, size in sizes.items():
        out = tmp_path / f"{frame}.mp4"
        words = ["generate", *given, "-o", str(out), "--frame", frame, "--json"]
        assert main([*words, "--gaze", "10,0", "--emotion", "happy=0.5"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["frames"], report["size"]) == (15, size)
        assert out.stat().st_size > 1000


def test_live_equals_offline_bit_for_bit_and_each_function_compiles_once(inputs, talker):
    _, release, noise = inputs
    live, engine = LiveConfig(), talker.engine
    before = live_step.count, roll_chunk.count, engine.render.count

    async def stream():
        async with talker.stream(noise, seed=4, frame="crop", pace=False, live=live) as frames:
            return [frame async for frame in frames]

    frames = asyncio.run(stream())
    assert len(frames) == 15 and all(frame.drawn for frame in frames)
    cfg, stats = engine.motion_config, engine.stats
    # What a stream hears, a frame at a time.
    state, rows = audio_features.init_state(cfg.features, 1), []
    for samples in noise.reshape(15, 640):
        state, row = audio_features.kept_step(cfg.features, state, samples[None])
        rows.append(np.asarray(row)[0, 0])
    feats, free = np.stack(rows), Controls.none(15)
    motion = generate_motion(
        cfg, engine.motion_params, stats, feats, free, seed=4, sampler="ddim", steps=2,
        hop=live.hop, ahead=live.ahead, guidance=HOW["guidance"],
        temperature=engine.defaults.temperature,
    )  # fmt: skip
    loud = speaking(loud_frames(audio_features.power_db(cfg.features, feats)), 15)
    finished = finish_for(cfg.motion_space, seed=4)(motion, free, loud)
    np.testing.assert_array_equal(np.stack([frame.motion for frame in frames]), finished)
    after = live_step.count, roll_chunk.count, engine.render.count
    assert [a - b for a, b in zip(after, before, strict=True)] == [1, 1, 1]
    again = asyncio.run(stream())
    np.testing.assert_array_equal(again[9].motion, frames[9].motion)
    assert (live_step.count, engine.render.count) == (after[0], after[2])


def test_serve_shows_a_session(inputs):
    release = inputs[1]

    async def run():
        async with serving(release) as (_, client, _url):
            portrait = await client.portrait(png(drawn_face(220)), consent="drawn by a test")
            async with client.session(portrait=portrait, source="file") as session:
                await session.say(0.1 * np.random.default_rng(0).normal(size=8000))
                async for message in session:
                    if message.type == "video" and message.header["index"] >= 3:
                        return message.payload
        return b""

    assert len(asyncio.run(run())) > 100


def test_evaluate_talk_and_controls(inputs, tmp_path, capsys, monkeypatch):
    folder, release, _ = inputs
    given = ["--portraits", str(folder / "face.png"), "--speech", str(folder / "speech.wav")]
    common = [*given, "--judges", "", "--json", str(tmp_path / "out.json"), "--seconds", "0.6"]
    for words in (["talk", "--pairs", "1"], ["controls", "--only", "distance", "--most", "1"]):
        assert main(["evaluate", words[0], str(release.path), *words[1:], *common]) == 0
        about = json.loads((tmp_path / "out.json").read_text())["about"]
        assert about["release_sha256"] == release.sha256
    capsys.readouterr()


def test_bench_and_its_floor(inputs, monkeypatch):
    if inputs[1].config["face"]["kind"] == "warp":
        pytest.skip("tests/cli/test_bench.py")
    from vasa_jax.bench import ceilings

    monkeypatch.setattr(ceilings, "MATRIX", 64)
    monkeypatch.setattr(ceilings, "COPY_MB", 1)
    monkeypatch.setattr(floor, "REPEATS", 1)
    here = floor.release_floor(Engine(inputs[1]), lambda text: None)
    parts = [part["part"] for part in here["parts"]]
    assert {"encode_appearance", "render", "encode", "denoise"} <= set(parts)
    assert here["fps_floor"] > 0


def test_release_show(inputs, capsys):
    release = inputs[1]
    assert main(["release", "show", str(release.path)]) == 0
    said = capsys.readouterr().out
    kind = release.config["face"]["kind"]
    assert f"face of kind {kind}" in said
    assert ("latent (7 + " in said) == (kind == "volume")


def test_soaks_and_sampler_benches_open_it(inputs):
    from tools import bench_samplers, soak_rolling

    release = inputs[1]
    words = f"--release {release.path} --hours 1 --hop 5 --block 1 --blocks-per-hour 2".split()
    card = soak_rolling.soak(soak_rolling.arguments(words))
    assert card["verdict"]["finite"] and card["compilations_after_warm_up"] == 0
    measures = card["verdict"]["measures"]
    group = "dynamics" if release.config["face"]["kind"] == "volume" else "lips"
    assert f"spread of {group}" in measures and "mean yaw" in measures
    bench = bench_samplers.Bench(
        argparse.Namespace(
            release=str(release.path), motion=None, student=None, seconds=1.0, seed=0,
            speech=[inputs[0] / "speech.wav"], reference=3, hop=10, ahead=None,
        )
    )  # fmt: skip
    row = bench.row("ddim", 2, 0.0, 0.2)
    assert row["distance"] >= 0 and row["ms_per_window"] > 0
