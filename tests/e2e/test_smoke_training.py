"""``:smoke`` of both stages: a minute on a CPU, a loss that falls, a run folder that resumes."""

import pytest

from vasa_jax.cli.main import main
from vasa_jax.train.log import read_log

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.mark.slow
def test_stage_one_smoke_run_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", "off")
    run = tmp_path / "face"
    code = main(
        [
            "train", "--config", "configs/face_256_lite.py:smoke", "--workdir", str(run),
            "--set", "loop.picture_every=0", "--set", "loop.evaluate_every=0",
        ]
    )  # fmt: skip
    assert not code
    rows = read_log(run, "train")
    assert len(rows) == 8
    # Each batch has its own floor, the loss of the analytic warp alone: what is above it must go.
    above = [row["loss"] - row["l1_copy"] for row in rows]
    assert above[-1] < 0.3 * above[0]


@pytest.mark.slow
def test_full_stage_one_smoke_run_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", "off")
    run = tmp_path / "face"
    words = ["train", "--config", "configs/face_512.py:smoke", "--workdir", str(run)]
    assert not main([*words, "--set", "loop.picture_every=0"])
    rows = read_log(run, "train")
    assert len(rows) == 8
    assert rows[-1]["l1"] < 0.8 * rows[0]["l1"]  # the first row is that of step 5
    first, last = (row["psnr"] for row in read_log(run, "evaluate"))
    assert last > first + 2.0  # dB
    assert {"transfer_l1", "contrastive", "eyes", "discriminator"} <= set(rows[-1])


@pytest.mark.slow
@pytest.mark.parametrize("config", ["motion_lite", "motion_base"])
def test_stage_two_smoke_run_learns(tmp_path, monkeypatch, config):
    monkeypatch.setenv("VASA_CACHE", "off")
    run = tmp_path / "motion"
    assert not main(["train", "--config", f"configs/{config}.py:smoke", "--workdir", str(run)])
    losses = [row["loss"] for row in read_log(run, "train")]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert (run / "stats.json").is_file()  # the statistics go into the release
