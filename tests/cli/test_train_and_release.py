import argparse
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from tests.face.tiny_volumetric import TINY, filled
from tests.generate.tiny_release import FACE, MOTION, tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.checkpoint.train_state import Checkpoints
from vasa_jax.cli import release, train
from vasa_jax.core.config import to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.space import SpaceConfig
from vasa_jax.core.tree import count, flatten
from vasa_jax.face.volume.autoencoder import VolumetricAutoencoder
from vasa_jax.face.volume.face import origin_of
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import init_params

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


@pytest.fixture(scope="module")
def parts(broadcasting, tmp_path_factory):
    """Weights of the tiny release, and the file of its head."""
    folder = tmp_path_factory.mktemp("parts")
    params = load_release(tiny_release(folder / "release")).params
    np.savez(folder / "head.npz", **params["head"])
    return params, folder / "head.npz"


def write_run(folder, params, config, stats=None):
    """A run folder as training leaves it, after two steps."""
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, params=params, ema=params, rest={"step": np.int32(2)}, meta={})
    (folder / "config.json").write_text(json.dumps(config))
    if stats is not None:
        (folder / "stats.json").write_text(json.dumps({"motion": stats.to_json(), "frames": 9}))
    return folder


@pytest.fixture
def runs(parts, tmp_path):
    """A face run, a motion run and a student's, the face's with a head beside its data."""
    params, head = parts
    (tmp_path / "faces").mkdir()
    shutil.copy(head, tmp_path / "faces" / "head.npz")
    data = {"folder": str(tmp_path / "faces"), "shares": [["synthetic", 1.0]]}
    face = {"model": to_json(FACE), "head": "", "optim": {"lr": 1e-3}, "data": data}
    motion = {"model": to_json(MOTION), "data": {"folders": []}}
    write_run(tmp_path / "face", params["face"], face)
    write_run(tmp_path / "motion", params["motion"], motion, MotionStats.unit())
    student = motion | {"generate": to_json(GenerateDefaults(steps=4))}
    write_run(tmp_path / "student", params["motion"], student, MotionStats.unit())
    return tmp_path


def test_two_runs_become_one_release(runs, capsys):
    out, card = runs / "out" / "mine", runs / "card.md"
    card.write_text("# toy card\n")
    words = ["build", "--face", runs / "face", "--motion", runs / "motion", "-o", out]
    assert call(release, *words) == 0
    assert "card is a draft" in capsys.readouterr().out
    made = load_release(out)
    head = np.load(runs / "faces" / "head.npz")  # the one that the face was trained with
    np.testing.assert_array_equal(made.params["head"]["base"], head["base"])
    assert "| face | run face | 2 | " in made.card and "synthetic (1)" in made.card
    assert "stand-in data" in made.card and "licences of these data: not said" in made.card
    words += ["--overwrite", "--card", card]
    assert call(release, *words, "--drop", "motion/mouth_head", "--float16", "motion") == 0
    made = load_release(out)
    assert "mouth_head" not in made.params["motion"] and made.params["motion"]["transformer"]
    assert made.config["face"]["optim"]["lr"] == 1e-3
    assert made.config["steps"] == {"face": 2, "motion": 2}
    capsys.readouterr()
    assert call(release, "show", out) == 0
    shown = capsys.readouterr().out
    assert made.sha256 in shown and "# toy card" in shown
    assert "face of kind warp" in shown and "motion space arkit (54 named weights)" in shown
    assert made.config["face"]["kind"] == "warp"
    assert call(release, "show", out, "--json") == 0
    counts = json.loads(capsys.readouterr().out)["parameters"]
    assert counts["motion"] == count(made.params["motion"])
    assert "generate" not in made.config
    sampling = ["--generate", "sampler=ddim", "steps=4", "guidance={}"]
    assert call(release, *words, *sampling) == 0
    table = load_release(out).config["generate"]
    assert (table["sampler"], table["steps"], table["guidance"]) == ("ddim", 4, {})
    with pytest.raises(UserError, match="no sampler 'dim'"):
        call(release, *words, "--generate", "sampler=dim")
    with pytest.raises(UserError, match="--drop face/nothing"):
        call(release, *words, "--drop", "face/nothing")
    with pytest.raises(UserError, match="--face, --motion missing"):
        call(release, "build", "-o", out)


def test_a_student_comes_with_its_own_teacher(runs):
    out, again = runs / "out" / "mine", runs / "out" / "again"
    words = ["build", "--face", runs / "face", "--motion", runs / "motion", "-o", out]
    words += ["--overwrite"]
    with pytest.raises(UserError, match="is no student"):
        call(release, *words, "--student", runs / "motion")
    assert call(release, *words, "--student", runs / "student") == 0
    both = load_release(out)
    assert both.config["student"]["generate"]["steps"] == 4 and "generate" not in both.config
    assert set(both.params) == {"face", "motion", "student", "head"}
    based = ["build", "--base", out, "-o", again, "--overwrite"]
    assert call(release, *based, "--student", runs / "student") == 0
    for one, other in zip(flatten(load_release(again).params).values(),
                          flatten(both.params).values(), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    assert "## The base release" in load_release(again).card
    assert call(release, *based, "--motion", runs / "motion") == 0
    other = load_release(again)  # the old student had another teacher
    assert set(other.params) == {"face", "motion", "head"}
    assert set(other.config) == {"face", "motion", "steps"} == {*other.config["steps"], "steps"}
    config = json.loads((runs / "student" / "config.json").read_text())
    wide = dataclasses.replace(MOTION, window=40)
    (runs / "student" / "config.json").write_text(json.dumps(config | {"model": to_json(wide)}))
    with pytest.raises(UserError, match="another model"):
        call(release, *words, "--student", runs / "student")
    (runs / "student" / "config.json").write_text(json.dumps(config))
    (runs / "student" / "stats.json").write_text("{}")
    with pytest.raises(UserError, match="other statistics"):
        call(release, *words, "--student", runs / "student")


def test_what_no_verb_could_open_is_not_built(runs, parts):
    """Another model, weights that do not fit, no head, a whole head, no statistics."""
    words = ["build", "--motion", runs / "motion", "-o", runs / "out"]
    with pytest.raises(UserError, match="motion is a run of the motion model .* --face wants"):
        call(release, *words, "--face", runs / "motion")
    toy = write_run(runs / "toy", {"x": np.zeros(2)}, {"width": 3})
    with pytest.raises(UserError, match="no model that is known here"):
        call(release, *words, "--face", toy)
    with pytest.raises(UserError, match="nowhere is not a training run"):
        call(release, *words, "--face", runs / "nowhere")
    other = dataclasses.replace(FACE, encoder_width=12)
    config = {"model": to_json(other), "data": {"folder": str(runs / "faces")}, "head": ""}
    wide = write_run(runs / "wide", parts[0]["face"], config)
    with pytest.raises(UserError, match="face weights do not fit their config"):
        call(release, *words, "--face", wide)
    words += ["--face", runs / "face"]
    np.savez(runs / "facekit.npz", neutral=np.zeros(3), tris=np.zeros(3), group_names=np.array("a"))
    with pytest.raises(UserError, match=r"facekit.npz is ICT-FaceKit's whole head.*make_head.py"):
        call(release, *words, "--head", runs / "facekit.npz")
    with np.load(runs / "faces" / "head.npz") as z:
        blind = dict(z) | {"landmark_trust": np.zeros(478)}
    np.savez(runs / "blind.npz", **blind)
    with pytest.raises(UserError, match="blind.npz knows no landmarks"):
        call(release, *words, "--head", runs / "blind.npz")
    (runs / "faces" / "head.npz").unlink()
    with pytest.raises(UserError, match="name it with --head"):
        call(release, *words)
    words += ["--head", parts[1]]
    with pytest.raises(UserError, match="no card file .* one is written from the runs"):
        call(release, *words, "--card", runs / "card.md")
    (runs / "motion" / "stats.json").unlink()
    with pytest.raises(UserError, match="no statistics"):
        call(release, *words)
    assert not (runs / "out").exists()


def test_a_full_face_wants_a_motion_model_of_its_own_code(runs, capsys):
    """Its run is taken as a face; the code that motion is made in must be that of its E_dyn."""
    params = filled(jax.eval_shape(VolumetricAutoencoder(TINY).init, jax.random.key(0)))
    data = {"folder": str(runs / "faces")}
    full = write_run(runs / "full", params, {"model": to_json(TINY), "data": data, "head": ""})
    words = ["build", "--face", full, "-o", runs / "out"]
    arkit = r"the motion model is in the motion space arkit .* latent \(7 \+ 6 numbers, origin "
    with pytest.raises(UserError, match=arkit + origin_of(params)[:12]):
        call(release, *words, "--motion", runs / "motion")
    latent = SpaceConfig(kind="latent", dynamics=TINY.dynamics, origin=origin_of(params))
    for name, origin in (("own", latent.origin), ("foreign", "0" * 64)):
        model = dataclasses.replace(MOTION, space=dataclasses.replace(latent, origin=origin))
        weights = filled(jax.eval_shape(lambda m=model: init_params(m, jax.random.key(0))))
        stats = MotionStats.unit(model.motion_space)
        write_run(runs / name, weights, {"model": to_json(model)}, stats)
    with pytest.raises(UserError, match="the motion model is in .* origin 000000000000"):
        call(release, *words, "--motion", runs / "foreign")
    assert call(release, *words, "--motion", runs / "own") == 0
    capsys.readouterr()
    assert call(release, "show", runs / "out") == 0
    said = capsys.readouterr().out
    assert "volume" in said and f"latent (7 + {TINY.dynamics} numbers" in said


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
