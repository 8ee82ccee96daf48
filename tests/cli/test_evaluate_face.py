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

from vasa_jax.cli.face_runs import FaceRuns  # noqa: E402
from vasa_jax.core.errors import UserError  # noqa: E402
from vasa_jax.data import person  # noqa: E402
from vasa_jax.data.mesh_head import load_mesh_head  # noqa: E402
from vasa_jax.io.parts import Parts  # noqa: E402

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
    record, rows = runs.pair(0, sheet=True)
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
    from vasa_jax.metrics.reenactment import MOST_DB

    return MOST_DB


def words(folder, *more):
    return ["evaluate", "face", str(folder), "--identities", "2", "--pairs", "2", "--states", "2",
            "--clips", "", "--judges", "", *more]  # fmt: skip


def test_the_command_writes_table_json_and_sheet_and_repeats(
    folder, cheap, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("VASA_FACEKIT", raising=False)
    monkeypatch.delenv("VASA_FACES", raising=False)
    first, sheet = tmp_path / "a.json", tmp_path / "a.png"
    assert main(words(folder, "--json", str(first), "--sheet", str(sheet))) == 0
    said = capsys.readouterr().out
    assert "| pose | pose, degrees |" in said and "against copy" in said
    assert "z_dyn is computed from 45 expression weights" in said
    table = json.loads(first.read_text())
    assert table["summary"]["both"]["model"]["psnr"]["n"] == 2
    assert len(table["pairs"]["self"]["copy"]["psnr"]) == 2
    assert {row["question"] for row in table["probes"]} >= {"head pose", "which person?"}
    assert sheet.stat().st_size > 1000
    assert not first.with_name("a.json.partial").exists()

    # Stopped between two pairs, and continued: the same table.
    from vasa_jax.cli import face_runs

    whole, seen = face_runs.FaceRuns._pair, []

    def once(self, index):
        seen.append(index)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(face_runs.FaceRuns, "_pair", once)
    second = tmp_path / "b.json"
    assert main(words(folder, "--json", str(second))) == 130
    assert (tmp_path / "b.json.partial" / "pair_00000.json").exists()
    with pytest.raises(UserError, match="other settings"):
        Parts(second, dataclasses.asdict(SETTINGS))
    assert main(words(folder, "--json", str(second))) == 0
    assert seen == [0, 1, 1]
    assert json.loads(second.read_text()) == table


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
