import json

import jax
import pytest

from vasa_jax.cli.main import main


@pytest.fixture(autouse=True)
def as_users_run_it(monkeypatch):
    monkeypatch.setenv("VASA_CACHE", "off")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_the_full_motion_model_is_counted_per_module_and_in_all(capsys):
    assert main(["inspect", "configs/motion_base.py", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    modules = report["modules"]
    assert 25e6 < report["parameters"] < 30e6
    assert sum(m["parameters"] for m in modules.values()) == report["parameters"]
    assert sum(m["bytes"] for m in modules.values()) == report["bytes"]
    # Eight blocks: attention 4 w^2 + 4 w, network 8 w^2 + 5 w, own modulation 6 w; shared
    # modulation 6 (w^2 + w); last norm 2 w.
    w = 512
    blocks = 8 * (12 * w * w + 15 * w) + 6 * (w * w + w) + 2 * w
    assert modules["transformer/blocks"]["parameters"] == blocks


def test_the_face_is_counted_and_shown_to_people(capsys):
    assert main(["inspect", "configs/face_256_lite.py", "--depth", "1"]) == 0
    out = capsys.readouterr().out
    assert "decoder" in out and "volume" in out and "in all" in out and "100.0%" in out


def test_cost_of_the_calls_comes_from_the_compiler(capsys):
    words = ["inspect", "configs/motion_base.py:smoke", "--cost", "--json"]
    assert main([*words, "--set", "model.transformer.depth=1"]) == 0
    functions = json.loads(capsys.readouterr().out)["functions"]
    assert set(functions) == {"encode", "denoise", "gradient"}
    # Forward and backward of 8 windows cost more than 16 times one forward.
    assert functions["gradient"]["flops"] > 16 * functions["denoise"]["flops"] > 0
    assert main(["inspect", "configs/face_256_lite.py:smoke"]) == 0


def test_work_is_counted_per_module_without_building_the_model(capsys):
    assert main(["inspect", "configs/face_512.py", "--json", "--depth", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calls"] == ["encode_appearance", "encode_motion", "render"]
    modules = report["modules"]
    # Multiply-adds of MegaPortraits' decoder with 1x1 shortcuts (paper facts 2.8): 252 G. Of these
    # the first convolutions of three upsampled blocks need 4/9, and their shortcuts a quarter.
    first, shortcut = 3 * 9 * 512 * 256 * 128**2 / 1e9, 3 * 512 * 256 * 128**2 / 1e9
    expected = 252 - 5 / 9 * first - 3 / 4 * shortcut
    assert modules["decoder"]["flops"] / 2e9 == pytest.approx(expected, rel=0.01)
    # Projection, 8 blocks at 512 and three blocks in bfloat16; what they write, less the shortcuts.
    cells = 64 * 64
    written = 512 * cells * 17 + cells * (256 * 4 + 128 * 16 + 64 * 64) + 3 * 64 * cells
    # The halves of upsampled cells are written between the cells, and outside the outermost.
    written += 4 * (65**2 * 256 + 129**2 * 128 + 257**2 * 64)
    shortcuts = cells * (256 + 128 * 4 + 64 * 16)
    assert modules["decoder"]["activation_bytes"] == 2 * (written + shortcuts)
    assert modules["encoder"]["activation_bytes"] > modules["identity"]["activation_bytes"] > 0
    assert sum(m["flops"] for m in modules.values()) == report["flops"]


def test_what_is_no_model_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "toy.py"
    path.write_text("from tests.train.toy_task import ToyConfig\n\n"
                    "def get_config(variant='base'):\n    return ToyConfig()\n")  # fmt: skip
    assert main(["inspect", str(path)]) == 2
    assert "no model that can be inspected" in capsys.readouterr().err
