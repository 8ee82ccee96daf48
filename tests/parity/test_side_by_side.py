"""The comparison itself: what it calls equal, what its card says, what it needs, how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tools import bench_vs_torch, gpu_compare  # noqa: E402  # after the skip
from tools.side_by_side import compare, report, scenes  # noqa: E402
from tools.side_by_side.parity import Table  # noqa: E402

ROOT = Path(__file__).parents[2]
# What a machine with jax, flax, numpy and torch alone does not have.
ABSENT = (
    "PIL", "grain", "soundfile", "soxr", "av", "imageio", "aiohttp", "safetensors",
    "ai_edge_litert", "jaxtyping", "beartype", "tensorboardX", "numba", "cv2", "matplotlib",
)  # fmt: skip


def test_parity_is_measured_in_deviations() -> None:
    expected = {"x": np.array([0.0, 2.0, 0.0, 2.0]), "loss": np.array(4.0)}
    made = {"x": np.array([0.0, 2.0, 0.0, 2.4]), "loss": np.array(4.2)}
    gap = compare.parity(expected, made)
    # x has deviation 1: mean 0.1, largest 0.4; the loss is off by a twentieth of itself.
    assert gap["relative"] == pytest.approx(0.1) and gap["largest"] == pytest.approx(0.4)
    broken = compare.parity(expected, {**made, "x": np.array([np.nan, 2.0, 0.0, 2.0])})
    assert not broken["relative"] <= 1e9
    with pytest.raises(ValueError, match="x: "):
        compare.parity(expected, {**made, "x": np.zeros(3)})


def test_a_layer_that_differs_is_seen() -> None:
    table, x = Table(), np.linspace(-1, 1, 100)
    table.add("same", x, x + 1e-7)
    table.add("shifted", x, x + 1e-3)
    table.share("pixels", np.arange(100) > 4)
    assert [row["ok"] for row in table.rows] == [True, False, False]


def fake_row(**forms: dict) -> dict:
    row = {"name": "render", "batch": 1, "title": "render", "frames": 2, "parity": {}}
    return row | {"forms": {name.replace("_", " "): value for name, value in forms.items()}}


def timed(ms: float) -> dict:
    return compare.summary([ms] * 5) | {"first_call_s": 1.0, "peak_mb": 100.0}


def test_card_says_wins_losses_and_failures() -> None:
    lost = fake_row(torch_eager=timed(8.0), XLA=timed(10.0))
    won = fake_row(torch_eager=timed(30.0), XLA=timed(10.0)) | {"title": "warp"}
    failed = {"first_call_s": 2.0, "failed": "parity: 0.5"}
    won["forms"]["torch.compile"] = failed
    late = fake_row() | {"title": "late", "skipped": "out of time"}
    assert report.verdict(lost, False) == "0.80 (torch eager; PyTorch)"
    assert report.verdict(won, False) == "3.00 (torch eager; XLA)"
    # A form that failed its check has no part in a ratio.
    assert all(theirs != "torch.compile" for theirs, _, _ in compare.ratios(won))
    card = {
        "size": "lite", "device": "cpu", "command": "x", "date": "d", "commit": "c",
        "seconds": 60.0, "machine": {"cores": 2, "cpu": "p", "device": "cpu"}, "versions": {},
        "load_before": 0.0, "quick": True, "layers": [], "layers_note": "",
        "forms": ["torch eager", "torch.compile", "XLA"], "rows": [lost, won, late],
    }  # fmt: skip
    text = report.describe(card)
    assert "200.0" in text  # frames a second: two frames in 10 ms
    assert "torch.compile: parity: 0.5" in text and "late, batch 1: not run, out of time" in text
    assert "Quick run" in text


def test_percentiles() -> None:
    summary = compare.summary(list(range(1, 102)))
    assert (summary["ms"], summary["p10"], summary["p90"]) == (51, 11, 91)


def test_forms_that_all_failed_leave_a_row(tmp_path, monkeypatch) -> None:
    class Ended(compare.Process):
        def __init__(self, form, settings, log):
            super().__init__("no such form", settings, log)

    monkeypatch.setattr(compare, "Process", Ended)
    settings = compare.Settings(size="lite", device="gpu", quick=True, forms=("torch eager", "XLA"))
    comparison = compare.Comparison(settings, lambda text: None, tmp_path / "log")
    parts = scenes.parts("lite", "gpu", quick=True)[:2]
    comparison.run(parts, compare.time.monotonic() + 100.0)
    assert [row["name"] for row in comparison.rows] == ["render", "render"]
    for row in comparison.rows:
        assert all("ended with 1" in made["failed"] for made in row["forms"].values())


def test_a_process_that_ended_says_so_to_all_who_ask(tmp_path) -> None:
    settings = compare.Settings(size="lite", device="cpu", quick=True, forms=("XLA",))
    process = compare.Process("no such form", settings, tmp_path / "log")
    said = [process.answer(60.0), process.answer(60.0)]
    assert said[0] == said[1] and "ended with 1" in said[0]["failed"]
    process.stop()


@pytest.mark.parametrize("main", [bench_vs_torch.main, gpu_compare.main])
def test_what_is_missing_is_one_clear_line(main, monkeypatch, capsys, tmp_path) -> None:
    gpu = ["--device", "gpu", "--out", str(tmp_path)]
    if not torch.cuda.is_available():
        assert main(gpu) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: PyTorch sees no GPU") and said.count("\n") == 1
    find = bench_vs_torch.importlib.util.find_spec
    monkeypatch.setattr(
        bench_vs_torch.importlib.util, "find_spec", lambda n: None if n == "torch" else find(n)
    )
    assert main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: torch is not installed") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_part_has_both_forms() -> None:
    from tools.side_by_side import torch_forms, xla_forms

    shared = {"window", "guided", "train_motion"}
    for size, kind in (("lite", "_Lite"), ("full", "_Full")):
        for device in ("cpu", "gpu"):
            for part in scenes.parts(size, device, quick=False):
                for module in (torch_forms, xla_forms):
                    assert part.name in shared or hasattr(getattr(module, kind), part.name), part
    names = {p.name for leg in gpu_compare.LEGS for p in _parts(leg)}
    assert {p.name for s in ("lite", "full") for p in scenes.parts(s, "gpu", False)} == names
    assert sum(share for *_, share in gpu_compare.LEGS) == pytest.approx(1.0)


def _parts(leg):
    return [p for p in scenes.parts(leg[0], "gpu", False) if p.name in leg[1]]


def test_runs_with_jax_flax_numpy_and_torch_alone() -> None:
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ImportError(f"{{name}} is absent")

sys.meta_path.insert(0, Absent())
from tools import gpu_compare
from tools.side_by_side import compare, parity, report, scenes, torch_forms, worker, xla_forms

for size in ("lite", "full"):
    scene = scenes.scene(size, True)
    torch_forms.TorchForms(scene, "cpu", compiled=False, bfloat16=False).make("warp", 1).run()
    scenes.motion_batch(scene.train_motion, 1)
assert not report.draw({{}}, "x.png")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=600)
