from __future__ import annotations

import json

import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import tiny_release
from vasa_jax.cli.main import main
from vasa_jax.io.image import write_image

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    import soundfile

    folder = tmp_path_factory.mktemp("bench")
    tiny_release(folder / "tiny")
    write_image(folder / "face.png", drawn_face(120))
    noise = np.random.default_rng(0).normal(0, 0.1, 12_000)
    soundfile.write(folder / "speech.wav", noise, 16_000)
    return [
        "bench", "--release", str(folder / "tiny"), "--portrait", str(folder / "face.png"),
        "--speech", str(folder / "speech.wav"), "--seconds", "3", "--runs", "1",
    ]  # fmt: skip


@pytest.mark.slow
def test_offline_live_and_streams_are_measured(command, capsys, tmp_path):
    only = [x for name in ("offline", "live", "streams") for x in ("--only", name)]
    options = ["--streams", "1", "--json", "--card", str(tmp_path), "--name", "mine"]
    assert main([*command, *only, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["offline"]) == {"full", "crop"} and "start" not in report
    crop = report["offline"]["crop"]
    assert crop["frames"] == 75 and crop["fps"] > 0
    # No part can take longer than all of a run, though they overlap.
    assert crop["ms_per_frame"]["render"] <= 1e3 / crop["fps"] + 1.0
    # Chunks follow one another without a gap, so that together they are the run but its start.
    gap = crop["frame_interval_ms"]
    assert 0 < gap["p50"] <= gap["p99"] <= gap["max"] and gap["p50"] < 2e3 / crop["fps"]
    assert set(report["live"]) == {"full", "crop"}
    paced, free = report["live"]["crop"]["paced"], report["live"]["crop"]["free"]
    assert 0 < paced["fps"] <= 26.0 < 1e3 and free["fps"] > 0
    assert set(paced["missed"]) == {"25", "40", "60"}
    assert paced["missed"]["25"] <= paced["missed"]["40"] <= paced["missed"]["60"]
    assert paced["hop_ms"]["p50"] <= paced["hop_ms"]["p99"]
    assert report["streams"]["tried"] == 1 and report["memory_mb"] > 50
    (card,) = tmp_path.glob("mine_*.md")
    assert "hops that miss their deadline" in card.read_text()
    assert json.loads(card.with_suffix(".json").read_text()) == report


@pytest.mark.slow
def test_the_floor_of_a_release_is_measured(command, capsys, monkeypatch):
    from vasa_jax.bench import ceilings as floor

    monkeypatch.setattr(floor, "MATRIX", 128)
    monkeypatch.setattr(floor, "COPY_MB", 2)
    assert main([*command, "--only", "floor", "--json"]) == 0
    (here,) = json.loads(capsys.readouterr().out)["floor"]
    names = [part["part"] for part in here["parts"]]
    assert names == ["encode_appearance", "render", "encode", "denoise"]
    assert all(part["measured_ms"] > 0 and part["achieved"] > 0 for part in here["parts"])
    assert here["fps_floor"] > 0


def test_the_floor_of_a_configuration_is_counted_not_run():
    from vasa_jax.bench.floor import config_floor, describe

    full = config_floor("configs/face_512.py", lambda text: None)
    assert full["rtx_4090"]["dtype"] == ["bfloat16"] and "ceilings" not in full
    # Compute bound; `vasa-jax inspect` counts 0.44 TFLOP of products for a frame.
    assert full["rtx_4090"]["fps"] == pytest.approx(165.2e12 / 0.444e12, rel=0.03)
    text = "\n".join(describe(full))
    assert "82.6" not in text and "165.2 TFLOP/s (bfloat16), 1008 GB/s" in text


@pytest.mark.slow
def test_a_start_is_timed_until_its_first_frame(command, capsys):
    assert main([*command, "--only", "start"]) == 0
    assert "start to first frame, cached" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, words", [(["--runs", "0"], "--runs: 0 is outside"), (["--seconds", "1"], "--seconds"),
                     (["--streams", "999"], "--streams"), (["--name", "a/b"], "--name")],
)  # fmt: skip
def test_nonsense_is_refused_at_once(command, wrong, words, capsys):
    assert main([*command, *wrong]) == 2
    assert words in capsys.readouterr().err
