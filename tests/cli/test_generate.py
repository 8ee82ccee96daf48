from __future__ import annotations

import argparse
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import FACE, tiny_release
from vasa_jax.cli.main import main
from vasa_jax.core.errors import UserError
from vasa_jax.io.image import write_image

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a release, pictures and sounds, good and bad."""
    import soundfile

    folder = tmp_path_factory.mktemp("inputs")
    tiny_release(folder / "tiny")
    shutil.copytree(folder / "tiny", folder / "broken")
    with open(folder / "broken" / "card.md", "a") as card:
        card.write("changed")
    write_image(folder / "face.png", drawn_face(240))
    write_image(folder / "wall.png", np.full((120, 120, 3), 150, np.uint8))
    noise = np.random.default_rng(0).normal(0, 0.1, 12_000)
    soundfile.write(folder / "speech.wav", noise, 16_000)
    soundfile.write(folder / "short.wav", noise[:800], 16_000)
    wav = (folder / "speech.wav").read_bytes()
    (folder / "joined.wav").write_bytes(wav + wav)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.txt").write_text("neither picture nor sound")
    return folder


def _command(inputs, out, *options, portrait="face.png", speech="speech.wav", release="tiny"):
    return [
        "generate", str(inputs / portrait), str(inputs / speech), "-o", str(out),
        "--release", str(inputs / release), "--steps", "2", *options,
    ]  # fmt: skip


def test_one_json_object_and_a_video_come_out(inputs, tmp_path, capsys):
    import av

    out, sheet, preview = tmp_path / "out.mp4", tmp_path / "sheet.png", tmp_path / "preview.gif"
    options = ("--json", "--sheet", str(sheet), "--preview", str(preview), "--gaze", "-20,5",
               "--emotion", "happy=0.5")  # fmt: skip
    assert main(_command(inputs, out, *options)) == 0
    report = json.loads(capsys.readouterr().out)
    assert {
        "frames", "size", "seconds", "ms_per_frame", "compilations", "face_box", "faces",
        "release", "release_sha256", "seed", "fps", "duration", "out",
    } <= set(report)  # fmt: skip
    assert set(report["ms_per_frame"]) >= {"motion", "render", "encode"}
    assert report["frames"] == 19 and report["size"] == [240, 240] and report["release"] == "tiny"
    with av.open(str(out)) as video:
        picture, sound = video.streams.video[0], video.streams.audio[0]
        assert picture.frames == 19 and (picture.width, picture.height) == (240, 240)
        assert picture.codec_context.name == "h264" and sound.codec_context.name == "aac"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "preview.gif", "sheet.png"]
    with Image.open(preview) as animation:  # every second frame, for as long as it is shown
        assert animation.n_frames == 10 and animation.info["duration"] == 80
        assert max(animation.size) <= 256 and animation.info["loop"] == 0


def test_the_crop_is_the_model_s_square(inputs, tmp_path, capsys):
    assert main(_command(inputs, tmp_path / "o.mp4", "--frame", "crop", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size"] == [FACE.size, FACE.size] and report["warnings"] == []


def test_what_was_left_of_a_sound_is_said_on_stderr_and_in_json(inputs, tmp_path, capsys):
    command = _command(inputs, tmp_path / "o.mp4", "--frame", "crop", "--json", speech="joined.wav")
    assert main(command) == 0
    captured = capsys.readouterr()
    (warning,) = json.loads(captured.out)["warnings"]
    left = (inputs / "speech.wav").stat().st_size
    assert f"joined.wav: {left} bytes were left" in warning
    assert f"vasa-jax: warning: {warning}\n" in captured.err


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({"portrait": "wall.png"}, (), "no face found"),
        ({"portrait": "text.txt"}, (), "text.txt"),
        ({"portrait": "missing.png"}, (), "missing.png"),
        ({"speech": "text.txt"}, (), "text.txt"),
        ({"speech": "empty.wav"}, (), "empty"),
        ({"speech": "short.wav"}, (), "0.2 s"),
        ({"release": "broken"}, (), "checksum"),
        ({"release": "nowhere"}, (), "no release"),
        ({}, ("--face", "3"), "no face 3"),
        ({}, ("--gaze", "80,0"), "outside"),
        ({}, ("--gaze", "left"), "YAW,PITCH"),
        ({}, ("--distance", "9"), "outside"),
        ({}, ("--distance", "near"), "number"),
        ({}, ("--emotion", "hapy=1"), "did you mean 'happy'"),
        ({}, ("--guidance", "audo=1"), "did you mean 'audio'"),
        ({}, ("--sampler", "dimm"), "did you mean 'ddim'"),
        ({}, ("--steps", "0"), "--steps"),
        ({}, ("--seed", "-1"), "--seed"),
        ({}, ("--controls", "/nonexistent.json"), "nonexistent"),
        ({}, ("--sheet", "sheet.doc"), "sheet.doc"),
        ({}, ("--preview", "film.mp4"), ".webp or .gif"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_leaves_nothing(
    inputs, tmp_path, capsys, change, options, says
):
    assert main(_command(inputs, tmp_path / "out.mp4", *options, **change)) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("vasa-jax: error: ") and says in last
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.avi", "no/such/folder/out.mp4", "."])
def test_a_video_that_can_t_be_written_is_refused_before_the_work(inputs, tmp_path, capsys, name):
    assert main(_command(inputs, tmp_path / name)) == 2
    assert "can't write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [UserError("can't write: the disk is full"), KeyboardInterrupt()])
def test_an_interruption_while_encoding_leaves_nothing(
    inputs, tmp_path, capsys, monkeypatch, error
):
    from vasa_jax.io.video import VideoWriter

    write = VideoWriter.write

    def fails(self, frame):
        if self.num_frames == 5:
            raise error
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", fails)
    assert main(_command(inputs, tmp_path / "out.mp4")) == (
        2 if isinstance(error, UserError) else 130
    )
    assert list(tmp_path.iterdir()) == []


def test_what_will_look_wrong_is_a_warning_or_with_strict_the_end(inputs, tmp_path, capsys):
    write_image(inputs / "night.png", (drawn_face(240) * 0.05).astype(np.uint8))
    assert main(_command(inputs, tmp_path / "a.mp4", "--json", portrait="night.png")) == 0
    captured = capsys.readouterr()
    (line,) = [x for x in captured.err.splitlines() if "warning" in x]
    assert "night.png: the face is nearly black" in line
    assert line.endswith(json.loads(captured.out)["warnings"][0])
    strict = _command(inputs, tmp_path / "b.mp4", "--json", "--strict", portrait="night.png")
    assert main(strict) == 2
    captured = capsys.readouterr()
    (line,) = [x for x in captured.err.splitlines() if x.startswith("vasa-jax:")]
    assert line.startswith("vasa-jax: error:") and "nearly black" in line and not captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_several_faces_are_said(inputs, tmp_path, capsys):
    picture = np.full((300, 600, 3), 90, np.uint8)
    picture[:, 300:], picture[60:260, 40:240] = drawn_face(300), drawn_face(200)
    write_image(tmp_path / "two.png", picture)
    command = _command(inputs, tmp_path / "out.mp4", "--json", portrait=tmp_path / "two.png")
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "2 faces: using the largest" in captured.err
    assert json.loads(captured.out)["faces"] == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "PORTRAIT and SPEECH are missing; give them, or --example"),
        (["face.png"], "SPEECH is missing"),
    ],
)
def test_what_is_missing_is_said_with_the_example(tmp_path, capsys, given, says):
    assert main(["generate", *given, "-o", str(tmp_path / "o.mp4")]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["face.png"], ["face.png", "speech.wav"]])
def test_the_example_stands_in_for_what_is_missing(given):
    import vasa_jax
    from vasa_jax.cli import generate

    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    args = parser.parse_args([*given, "--example", "-o", "o.mp4"])
    generate._complete(args)
    bundled = [str(vasa_jax.example_portrait()), str(vasa_jax.example_speech())]
    assert [args.portrait, args.speech] == [*given, *bundled[len(given) :]]
    assert all(os.path.isfile(name) for name in bundled)
