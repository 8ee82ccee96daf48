import hashlib
import json
import shutil
import subprocess
import tarfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from vasa_jax.checkpoint import release as module
from vasa_jax.checkpoint.release import load_release, save_release
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import flatten

RNG = np.random.default_rng(0)
PARAMS = {
    "face": {"enc": {"kernel": RNG.normal(size=(3, 4)).astype(np.float32)}},
    "motion": {"block_0": {"bias": RNG.normal(size=5).astype(np.float32)}},
    "head": {
        "base": RNG.normal(size=(6, 3)),  # float64
        "triangles": np.arange(6, dtype=np.int32).reshape(2, 3),
        "scale": np.float32(2.5),
    },
}
CONFIG = {"face": {"width": 8}, "motion": {"depth": 2}}
STATS = {"motion": {"mean": [0.1, 0.2]}}
CARD = "# toy\nnot for use\n"


@pytest.fixture
def folder(tmp_path):
    save_release(tmp_path / "toy", PARAMS, CONFIG, STATS, CARD)
    return tmp_path / "toy"


def test_what_was_saved_comes_back(folder):
    release = load_release(folder)
    expected, got = flatten(PARAMS), flatten(release.params)
    assert expected.keys() == got.keys()
    for name, array in expected.items():
        assert got[name].shape == np.shape(array), name
        np.testing.assert_array_equal(got[name], np.asarray(array).astype(got[name].dtype))
    assert got["head/triangles"].dtype == np.int32
    assert got["head/base"].dtype == np.float32
    assert (release.config, release.stats, release.card) == (CONFIG, STATS, CARD)
    assert release.name == "toy" and release.path == folder


def test_any_safetensors_reader_sees_the_path_names(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        assert set(file.keys()) == set(flatten(PARAMS))


def test_sha256sum_agrees(folder):
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("no sha256sum here")
    subprocess.run([program, "--check", "--strict", "sha256"], cwd=folder, check=True)


def test_the_hash_depends_on_content_alone(folder, tmp_path):
    again = save_release(tmp_path / "again", PARAMS, dict(reversed(CONFIG.items())), STATS, CARD)
    assert again == load_release(folder).sha256
    other = save_release(tmp_path / "other", PARAMS, CONFIG, STATS, CARD + "!")
    assert other != again


def test_half_precision_is_chosen_by_part_and_read_as_float32(tmp_path):
    params = {
        "face": {"w": np.float32([1 / 3, 1e-3]), "big": np.float32([1e6])},
        "motion": {"w": np.float32([1 / 3]), "narrow": np.ones(3, ml_dtypes.bfloat16)},
    }
    save_release(tmp_path / "half", params, {}, {}, "", float16=["face"])
    got = load_release(tmp_path / "half").params
    assert got["face"]["w"].dtype == np.float32
    np.testing.assert_allclose(got["face"]["w"], params["face"]["w"], rtol=2**-11)
    assert got["face"]["w"][0] != params["face"]["w"][0]
    np.testing.assert_array_equal(got["face"]["big"], [1e6])  # would be inf in half precision
    np.testing.assert_array_equal(got["motion"]["w"], params["motion"]["w"])
    np.testing.assert_array_equal(got["motion"]["narrow"], np.ones(3, np.float32))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "stats.json", "card.md"])
def test_one_changed_bit_anywhere_is_noticed(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"checksum of {name} does not match"):
        load_release(folder)


def test_missing_pieces_are_named(folder):
    (folder / "stats.json").unlink()
    with pytest.raises(UserError, match="stats.json is missing"):
        load_release(folder)
    lines = (folder / "sha256").read_text().splitlines()
    (folder / "sha256").write_text("\n".join(li for li in lines if "stats" not in li) + "\n")
    with pytest.raises(UserError, match="does not list stats.json"):
        load_release(folder)
    (folder / "sha256").unlink()
    with pytest.raises(UserError, match="is not a release"):
        load_release(folder)


def test_checksums_cannot_point_outside_the_folder(folder):
    (folder / "sha256").write_text("0" * 64 + "  ../secret\n")
    with pytest.raises(UserError, match="has a line"):
        load_release(folder)


def test_unknown_names_are_answered_with_the_known_ones(folder, monkeypatch):
    monkeypatch.setattr(module, "BUILT_IN", folder.parent)
    assert load_release("toy").path == folder
    with pytest.raises(UserError, match="no release 'tos': built in are toy"):
        load_release("tos")


def test_a_failed_save_leaves_nothing_and_keeps_the_old_release(folder):
    before = load_release(folder).sha256
    with pytest.raises(UserError, match="exists already"):
        save_release(folder, PARAMS, CONFIG, STATS, CARD)
    with pytest.raises(ValueError):
        save_release(folder, PARAMS, {"bad": float("nan")}, STATS, CARD, overwrite=True)
    with pytest.raises(ValueError, match="face/w holds numbers that are not finite"):
        save_release(folder.parent / "new", {"face": {"w": np.float32([np.nan])}}, {}, {}, "")
    assert load_release(folder).sha256 == before
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]
    save_release(folder, PARAMS, CONFIG, STATS, "new card", overwrite=True)
    assert load_release(folder).card == "new card"
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]


def test_names_that_would_collide_are_refused(tmp_path):
    for bad in ({"a/b": np.zeros(1)}, {"": np.zeros(1)}, {"a": [np.zeros(1)]}, {"a": "text"}):
        with pytest.raises(ValueError):
            save_release(tmp_path / "bad", {"face": bad}, {}, {}, "")


def test_named_tuples_are_stored_by_field(tmp_path):
    class Head(NamedTuple):
        base: np.ndarray

    save_release(tmp_path / "h", {"head": Head(base=np.ones((2, 3), np.float32))}, {}, {}, "")
    assert load_release(tmp_path / "h").params["head"]["base"].shape == (2, 3)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_fetched_once_and_checked(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "a"
    archive = module.Path(shutil.make_archive(str(archive), kind, folder.parent, "toy"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    url = archive.as_uri()
    with pytest.raises(UserError, match="add the archive's checksum"):
        load_release(url)
    with pytest.raises(UserError, match="checksum of .* does not match"):
        load_release(f"{url}#sha256={'0' * 64}")
    assert load_release(f"{url}#sha256={digest}").sha256 == load_release(folder).sha256
    archive.unlink()
    assert load_release(f"{url}#sha256={digest}").config == CONFIG
    with pytest.raises(UserError, match="cannot fetch"):
        load_release(f"{url}#sha256={'1' * 64}")
    with pytest.raises(UserError, match="not http://"):
        load_release("http://example.org/a.zip")


def test_an_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "payload").write_text("x")
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "payload", arcname="../../escaped")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="not a .zip or .tar archive of a release"):
        load_release(f"{archive.as_uri()}#sha256={digest}")
    assert not list(tmp_path.rglob("escaped"))


def test_config_is_readable_text(folder):
    assert json.loads((folder / "config.json").read_text()) == CONFIG
