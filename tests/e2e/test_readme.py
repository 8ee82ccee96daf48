"""README's commands run as they stand: those for everybody here, those of training in a clone."""

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile
from PIL import Image

import vasa_jax
from vasa_jax.cli.main import main
from vasa_jax.io.audio import read_audio

ROOT = Path(__file__).parents[2]


README = (ROOT / "README.md").read_text(encoding="utf-8")
SENTENCES = re.sub(r"```.*?```", "", README, flags=re.S)
HERE = ".venv/bin/vasa-jax"


def commands(block):
    """Lines of a block of bash, comments and continuations taken away."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    return [line for line in (re.sub(r"\s+#\s.*$", "", x).strip() for x in lines) if line]


def lines_of(number):
    """Commands of a block of "Train it yourself"."""
    section = re.search(r"^## Train it yourself$(.*?)^## ", README, re.M | re.S)[1]
    return commands(re.findall(r"```bash\n(.*?)```", section, re.S)[number])


def other_lines():
    """Commands of all other blocks, and ``vasa-jax`` ones within sentences."""
    text = re.sub(r"^## Train it yourself$.*?^## ", "## ", README, flags=re.M | re.S)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    within = re.findall(r"`(vasa-jax [^`]+)`", SENTENCES)
    return [line for block in blocks for line in commands(block)] + within


def words_of(line):
    """Words of a ``vasa-jax`` command, variables before it left out; None for another program."""
    words = shlex.split(line)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    return words[1:] if words[0] in ("vasa-jax", HERE) else None


def test_lines_for_everybody_are_commands_that_there_are():
    for line in other_lines():
        words = words_of(line)
        if words is None:
            (path,) = re.findall(r"tools/\w+", line) or [".venv/bin/pip"]
            assert path == ".venv/bin/pip" or (ROOT / path).is_file(), line
            continue
        parser = argparse.ArgumentParser()
        importlib.import_module(f"vasa_jax.cli.{words[0]}").add_arguments(parser)
        if words[1:] != ["--help"]:
            parser.parse_args(words[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, broadcasting):
    """What the lines speak of: a photograph, and half a second of a voice in two formats."""
    import av

    del broadcasting
    folder = tmp_path_factory.mktemp("readme")
    Image.open(vasa_jax.example_portrait()).convert("RGB").save(folder / "photo.jpg")
    voice = read_audio(vasa_jax.example_speech())[8000:16_000]
    soundfile.write(folder / "voice.wav", voice, 16_000)
    with av.open(str(folder / "voice.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(voice[None], format="fltp", layout="mono")
        frame.rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    (folder / "out").mkdir()
    return folder


def test_lines_that_speak_run_as_they_stand(folder, monkeypatch):
    monkeypatch.chdir(folder)
    lines = [line for line in other_lines() if re.match(rf"{HERE} generate", line)]
    assert len(lines) == 2
    for line in lines:
        Path("out/me.mp4").unlink(missing_ok=True)
        assert main(words_of(line)) == 0, line
        assert Path("out/me.mp4").stat().st_size > 5000
    # Both files that README verifies, made the way it makes them.
    shutil.copy("out/me.mp4", "video.mp4")
    assert (
        main(["generate", "photo.jpg", "voice.wav", "-o", "o.mp4", "--sheet", "picture.png"]) == 0
    )
    (line,) = [line for line in other_lines() if line.startswith("vasa-jax verify")]
    assert main(words_of(line)) == 0


def test_lines_of_python_run_as_they_stand(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (lines,) = re.findall(r"```python\n(import vasa_jax.*?)```", README, re.S)
    exec(compile(lines, "README.md", "exec"), {"__name__": "readme"})
    assert "'frames': 13" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_runs_as_it_stands():
    done = subprocess.run(["tools/demo"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "Watch out/demo.mp4" in done.stdout, done.stderr


def test_every_line_of_training_can_be_parsed_and_names_what_there_is(monkeypatch):
    from vasa_jax.cli.settings import configured
    from vasa_jax.core.mesh import abstract_mesh, check_batch

    monkeypatch.chdir(ROOT)
    lines = lines_of(0) + lines_of(1)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [line for line in lines if line.startswith("pip install")]
    named = re.search(r"\[(.*)\]", install)[1].split(",")
    assert set(named) <= set(extras["optional-dependencies"])
    made = set()  # what an earlier line leaves behind
    for line in lines:
        words = words_of(line)
        if words is None:
            for path in re.findall(r"(?:tools|configs)/\S+", line):
                assert (ROOT / path).is_file(), line
            continue
        parser = argparse.ArgumentParser()
        verb = importlib.import_module(f"vasa_jax.cli.{words[0]}")
        verb.add_arguments(parser)
        args = parser.parse_args(words[1:])
        if words[0] in ("train", "inspect"):
            cfg = configured(args)
            if words[0] == "train":
                made.add(args.workdir)
                count = int(cfg.loop.mesh.fsdp)
                mesh = abstract_mesh(cfg.loop.mesh, count)
                check_batch(mesh, getattr(cfg, "batch", None) or cfg.data.batch,
                            cfg.optim.accumulate)  # fmt: skip
        if words[0] == "release":
            assert {args.face, args.motion} <= made and not args.head and not args.card
            made.add(args.output)
        if words[0] == "generate":
            assert args.release in made
            assert all(Path(word).is_file() for word in words[1:3])


@pytest.mark.slow
def test_lines_of_training_run_as_they_stand(tmp_path):
    clone = tmp_path / "clone"
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(clone)}
    environment |= {"VASA_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    for name in ("VASA_FACES", "VASA_DATA", "VASA_FACEKIT"):
        environment.pop(name, None)
    for line in lines_of(0):
        if line.startswith(("python3 -m venv", "pip install")):
            continue  # done: this is the environment
        done = subprocess.run(["bash", "-ec", line], cwd=clone, env=environment, text=True,
                              capture_output=True, timeout=3000)  # fmt: skip
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    assert (clone / "out.mp4").stat().st_size > 10_000
    assert "a smoke run" in (clone / "my_release" / "card.md").read_text()
    # Without the data that the full configs want, one line says what is missing.
    for line, said in (
        ("vasa-jax train --config configs/face_512.py --workdir w", "VASA_FACES is not set"),
        ("VASA_FACES=faces vasa-jax train --config configs/face_512.py --workdir w",
         "no face files in"),
        ("vasa-jax train --config configs/motion_lite.py --workdir w", "VASA_DATA is not set"),
    ):  # fmt: skip
        done = subprocess.run(["bash", "-ec", line], cwd=clone, env=environment, text=True,
                              capture_output=True, timeout=600)  # fmt: skip
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
