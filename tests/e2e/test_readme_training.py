"""README's "Train it yourself": its lines run as they stand, in a fresh clone."""

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

ROOT = Path(__file__).parents[2]


def lines_of(number):
    """Commands of a block of that section, comments and continuations taken away."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Train it yourself$(.*?)^## ", text, re.M | re.S)[1]
    block = re.findall(r"```bash\n(.*?)```", section, re.S)[number]
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    return [line for line in (re.sub(r"\s+#\s.*$", "", x).strip() for x in lines) if line]


def words_of(line):
    """Words of a ``vasa-jax`` command, variables before it left out; None for another program."""
    words = shlex.split(line)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    return words[1:] if words[0] == "vasa-jax" else None


def test_every_line_can_be_parsed_and_names_what_there_is(monkeypatch):
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
def test_the_lines_run_as_they_stand(tmp_path):
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
