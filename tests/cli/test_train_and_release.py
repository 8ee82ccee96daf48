import argparse
import json
import shutil

import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli import release, train
from vasa_jax.core.errors import UserError

CONFIG = """
import dataclasses
from tests.train.toy_task import ToyConfig

def get_config(variant="base"):
    return {"base": ToyConfig(), "noisy": ToyConfig(noise=0.2)}[variant]
"""


def call(verb, *words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(w) for w in words]))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", "off")
    (tmp_path / "toy.py").write_text(CONFIG)
    return tmp_path / "toy.py"


def test_two_runs_become_one_release(toy, tmp_path, capsys):
    for stage in ("face", "motion"):
        words = ["--config", f"{toy}:noisy", "--workdir", tmp_path / stage, "--steps", 2]
        assert call(train, *words, "--set", "optim.lr=1e-3") == 0
    np.savez(tmp_path / "head.npz", base=np.ones((4, 3)), triangles=np.zeros((2, 3), np.int32))
    (tmp_path / "card.md").write_text("# toy card\n")
    out = tmp_path / "out" / "toy"
    words = ["build", "--face", tmp_path / "face", "--motion", tmp_path / "motion"]
    words += ["--head", tmp_path / "head.npz", "--card", tmp_path / "card.md", "-o", out]
    assert call(release, *words, "--drop", "face/dense/bias", "--float16", "motion") == 0
    made = load_release(out)
    assert set(made.params["face"]["dense"]) == {"kernel"}
    assert made.params["motion"]["dense"]["kernel"].shape == (4, 2)
    assert made.config["face"]["optim"]["lr"] == 1e-3
    assert made.config["steps"] == {"face": 2, "motion": 2}
    assert made.stats["motion"] == {"mean": [0.5, 0.5]}
    capsys.readouterr()
    assert call(release, "show", out) == 0
    shown = capsys.readouterr().out
    assert made.sha256 in shown and "# toy card" in shown
    assert call(release, "show", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["motion"] == 10
    assert "generate" not in made.config
    sampling = ["--generate", "sampler=ddim", "steps=4", "guidance={}"]
    assert call(release, *words, "--overwrite", *sampling) == 0
    table = load_release(out).config["generate"]
    assert (table["sampler"], table["steps"], table["guidance"]) == ("ddim", 4, {})
    with pytest.raises(UserError, match="no sampler 'dim'"):
        call(release, *words, "--overwrite", "--generate", "sampler=dim")
    with pytest.raises(UserError, match="is no student"):
        call(release, *words, "--overwrite", "--student", tmp_path / "face")
    student = tmp_path / "student"
    shutil.copytree(tmp_path / "motion", student)
    config = json.loads((student / "config.json").read_text()) | {"generate": {"steps": 4}}
    motion_config = json.loads((tmp_path / "motion" / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"model": 1}))
    (tmp_path / "motion" / "config.json").write_text(json.dumps(motion_config | {"model": 2}))
    with pytest.raises(UserError, match="another model"):
        call(release, *words, "--overwrite", "--student", student)
    (tmp_path / "motion" / "config.json").write_text(json.dumps(motion_config | {"model": 1}))
    assert call(release, *words, "--overwrite", "--student", student) == 0
    both = load_release(out)
    assert both.config["student"]["generate"] == {"steps": 4} and "generate" not in both.config
    assert set(both.params) == {"face", "motion", "student", "head"}
    again = tmp_path / "out" / "again"
    assert call(release, "build", "--base", out, "--student", student, "-o", again) == 0
    assert load_release(again).sha256 == both.sha256
    motion = ["--motion", tmp_path / "motion", "-o", again, "--overwrite"]
    assert call(release, "build", "--base", out, *motion) == 0
    other = load_release(again)  # the old student had another teacher
    assert (
        set(other.params) == {"face", "motion", "head"} == set(other.config) - {"steps"} | {"head"}
    )
    with pytest.raises(UserError, match="--head, --card missing"):
        call(release, "build", "--face", tmp_path / "face", *motion)
    (student / "stats.json").write_text("{}")
    with pytest.raises(UserError, match="other statistics"):
        call(release, *words, "--overwrite", "--student", student)
    with pytest.raises(UserError, match="--drop face/nothing"):
        call(release, *words, "--overwrite", "--drop", "face/nothing")


def test_length_comes_from_the_schedule_unless_steps_is_given(toy, tmp_path, capfd):
    assert call(train, "--config", toy, "--workdir", tmp_path / "w") == 0
    assert "finished 6 steps" in capfd.readouterr().err


def test_wrong_input_gets_one_line(toy, tmp_path):
    with pytest.raises(UserError, match="positive"):
        call(train, "--config", toy, "--workdir", tmp_path / "w", "--steps", 0)
    with pytest.raises(UserError, match="did you mean 'lr'"):
        call(train, "--config", toy, "--workdir", tmp_path / "w", "--set", "optim.lrr=1")
    (tmp_path / "plain.py").write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass C: pass\n"
        "def get_config(variant='base'): return C()\n"
    )
    with pytest.raises(UserError, match="no training configuration"):
        call(train, "--config", tmp_path / "plain.py", "--workdir", tmp_path / "w")
    words = ["--config", toy, "--workdir", tmp_path / "w"]
    for more, message in (
        (["--coordinator", "host:1"], "belong together"),
        (["--coordinator", "host", "--processes", 2, "--process-id", 0], "wants HOST:PORT"),
        (["--coordinator", "host:1", "--processes", 2, "--process-id", 2], "0 to 1, not 2"),
        (["--set", "loop.mesh.fsdp=3"], r"\? x 3, which does not fit 1 device;"),
    ):
        with pytest.raises(UserError, match=message):
            call(train, *words, *more)
    assert not (tmp_path / "w").exists()


def test_help_of_both_commands_can_be_printed(capsys):
    for verb in (train, release):
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser)
        assert "examples:" in parser.format_help()
