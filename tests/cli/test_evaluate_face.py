"""``vasa-jax evaluate face`` on the built-in head and random weights; its oracle; bad input."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli import evaluate_face
from vasa_jax.cli.main import main
from vasa_jax.metrics import image

pytest.importorskip("numba")
pytest.importorskip("cv2")

from vasa_jax.core.errors import UserError  # noqa: E402
from vasa_jax.evaluate.faces import FaceRuns  # noqa: E402
from vasa_jax.io.parts import Parts  # noqa: E402
from vasa_jax.synth.person import person  # noqa: E402
from vasa_jax.synth.person.load_head import load_mesh_head  # noqa: E402

pytestmark = pytest.mark.usefixtures("broadcasting")
SETTINGS = evaluate_face.Settings(
    release="0", head="built-in", seed=5, identities=2, source="any", judges=()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_release(tmp_path_factory.mktemp("release") / "tiny")


@pytest.fixture
def cheap(monkeypatch):
    """No perceptual net; mean difference has the same zero."""
    difference = lambda a, b: float(np.abs(a.astype(float) - b).mean())  # noqa: E731
    monkeypatch.setattr(image, "load_lpips", lambda *a: difference)
    monkeypatch.setattr(person, "_bake_occlusion", lambda head, shape: np.ones(len(shape), "f4"))


def oracle(source, fit):
    return {"copy": lambda q: source.image, "model": lambda q: q.truth.copy()}


def test_an_oracle_gets_zero_error_in_every_column(folder, cheap):
    runs = FaceRuns(
        load_release(folder), load_mesh_head(None), SETTINGS, Parts(None, {}), exact=False,
        prepare=oracle,
    )  # fmt: skip
    # A simple head at 64 px is not always taken for a face; such pairs are left out and counted.
    tried = [runs.pair(i, sheet=True) for i in range(4)]
    record, rows = next(pair for pair in tried if pair[0] is not None)
    assert len(runs.left_out) == sum(pair[0] is None for pair in tried)
    assert [len(row) for row in rows] == [4] * 4  # source, driver, truth, model
    assert set(record["cases"]) == {"self", "pose", "dynamics", "both", "agree"}
    for case in ("self", "pose", "dynamics", "both"):
        right, copied = record["cases"][case]["model"], record["cases"][case]["copy"]
        assert right["psnr"] == right["psnr_head"] == image_limit()
        for key in ("lpips", "landmarks", "lips", "pose", "expression"):
            assert right[key] == pytest.approx(0, abs=1e-5), (case, key)
        assert copied["landmarks"] > 0 and copied["lpips"] > 0
        # What the annotators say of the truth they say of the oracle, too.
        truth = record["cases"][case]["truth"]
        assert right["known_pose"] == pytest.approx(truth["known_pose"], nan_ok=True)
    # Copying is wrong by the pose where pose is asked for, and nearly right where it is not.
    poses = {case: record["cases"][case]["copy"]["pose"] for case in ("pose", "dynamics")}
    assert poses["pose"] > 2 * poses["dynamics"]


def image_limit() -> float:
    from vasa_jax.evaluate.swaps import MOST_DB

    return MOST_DB


def words(folder, *more):
    return ["evaluate", "face", str(folder), "--identities", "2", "--pairs", "2", "--head", "",
            "--faces", "", "--clips", "", "--judges", "", *more]  # fmt: skip


@pytest.mark.slow
def test_the_command_measures_a_release(folder, cheap, tmp_path, capsys):
    file, sheet = tmp_path / "a.json", tmp_path / "a.png"
    more = ("--states", "3", "--identities", "3", "--json", str(file), "--sheet", str(sheet))
    assert main(words(folder, *more)) == 0
    said = capsys.readouterr().out
    assert "| pose | pose, degrees |" in said and "against copy" in said
    assert "z_dyn is computed from 45 expression weights" in said
    table = json.loads(file.read_text())
    assert set(table["summary"]["both"]) == {"copy", "warp", "model", "truth"}
    assert table["summary"]["both"]["copy"]["psnr"]["n"] == 2
    # Random weights paint nothing like a face; geometry alone is not fooled by them.
    assert table["summary"]["self"]["warp"]["psnr"]["mean"] > 5
    assert {row["question"] for row in table["probes"]} >= {"head pose", "which person?"}
    honest = [r for r in table["probes"] if "true parameters" in r["code"]]
    assert len(honest) == 3
    assert sheet.stat().st_size > 1000
    assert not file.with_name("a.json.partial").exists()


@pytest.mark.usefixtures("quickly_compiled")
def test_a_full_face_is_measured_by_its_code(cheap, tmp_path, capsys):
    """Its dynamics come from the driver's pixels; it has no geometry alone and no true code."""
    release = tiny_release(tmp_path / "tiny", kind="volume")
    file, sheet = tmp_path / "a.json", tmp_path / "a.png"
    more = ("--states", "2", "--json", str(file), "--sheet", str(sheet))
    assert main(words(release, *more)) == 0
    said = capsys.readouterr().out
    assert "z_dyn is read from pixels" in said and "geometry alone;" not in said
    table = json.loads(file.read_text())
    for case in ("self", "pose", "dynamics", "both"):
        assert set(table["summary"][case]) == {"copy", "model", "truth"}
        assert np.isfinite(table["summary"][case]["model"]["psnr"]["mean"])
    codes = {row["code"] for row in table["probes"]}
    assert "z_dyn from the picture" in codes and not any("true parameters" in c for c in codes)
    assert sheet.stat().st_size > 1000


def test_an_interrupted_run_continues_to_the_same_table(folder, cheap, tmp_path, monkeypatch):
    def methods(self, source, fit):
        return oracle(source, fit)

    whole, seen = FaceRuns._pair, []

    def stopped(self, index):
        seen.append(index)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(FaceRuns, "methods", methods)
    monkeypatch.setattr(FaceRuns, "_pair", stopped)
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    sheets = tmp_path / "a.png", tmp_path / "b.png"
    more = ("--states", "0")
    assert main(words(folder, *more, "--json", str(first), "--sheet", str(sheets[0]))) == 0
    again = words(folder, *more, "--json", str(second), "--sheet", str(sheets[1]))
    assert main(again) == 130
    assert (tmp_path / "b.json.partial" / "pair_00000.json").exists()
    with pytest.raises(UserError, match="other settings"):
        Parts(second, dataclasses.asdict(SETTINGS))
    assert main(again) == 0
    assert seen == [0, 1, 0, 1, 1]  # the second pair is measured again, the first one is not
    assert json.loads(second.read_text()) == json.loads(first.read_text())
    assert sheets[1].read_bytes() == sheets[0].read_bytes()


@pytest.mark.parametrize(
    "more, said",
    [
        (("--identities", "1"), "--identities must be 2 or more"),
        (("--pairs", "0"), "--pairs must be 1 or more"),
        (("--seed", "-1"), "--seed must be 0 or more"),
        (("--sheet", "x.txt"), "name it .png"),
        (("--clips", "nowhere"), "no such folder"),
        (("--head", "none.npz"), "no head model at"),
        (("--judges", "arcface"), "arcface"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, more, said):
    assert main(words(folder, *more)) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
