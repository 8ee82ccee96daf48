"""Half an hour of a GPU, tried out on a CPU: what fits, what is stopped, what is left out."""

import json
import time

import jax
import pytest

from tools import gpu_half_hour
from vasa_jax.train.log import read_log


def test_what_fits_leaves_room_for_the_start_and_the_last_checkpoint():
    steps = gpu_half_hour.steps_within(300.0, 40.0, 0.5)
    assert steps * 0.5 + 40.0 + gpu_half_hour.SAVING_S <= 300.0
    assert (steps + 2) * 0.5 + 40.0 + gpu_half_hour.SAVING_S > 300.0
    assert gpu_half_hour.steps_within(5.0, 40.0, 0.5) == 1


def test_the_first_steps_do_not_say_how_long_one_takes(tmp_path):
    log = tmp_path / "log.jsonl"
    rows: list[dict] = [{"kind": "event", "step": 0}]
    for step, seconds in enumerate((9, 1, 1, 1, 0.5, 0.7), 1):
        rows.append({"kind": "train", "step": step, "step_s": seconds})
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert gpu_half_hour.step_seconds(tmp_path) == pytest.approx(0.6)
    log.write_text("")
    with pytest.raises(ValueError, match="no step"):
        gpu_half_hour.step_seconds(tmp_path)


def test_a_command_is_interrupted_when_its_time_is_over():
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *a: sys.exit(0))\n"
        "time.sleep({})"
    )
    began = time.monotonic()
    assert gpu_half_hour.run(["-c", code.format(60)], 2.0) == (0, True)
    assert time.monotonic() - began < 30
    assert gpu_half_hour.run(["-c", "raise SystemExit(3)"], 60.0) == (3, False)


def test_shares_are_of_the_whole_and_settings_are_known():
    from vasa_jax.core.config import load_config, override

    assert sum(stage.share for stage in gpu_half_hour.STAGES) == pytest.approx(1.0)
    for stage in gpu_half_hour.STAGES:
        config = load_config(f"configs/{stage.config}.py")
        for name, value in stage.settings.items():
            override(config, [f"{name}={value}"])


def test_without_a_gpu_or_data_it_says_so(monkeypatch, capsys, tmp_path):
    if not any(d.platform == "gpu" for d in jax.devices()):
        assert gpu_half_hour.main(["--runs", str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith("error: JAX sees no GPU")
    for name in ("VASA_FACES", "VASA_DATA"):
        monkeypatch.delenv(name, raising=False)
    given = ["--device", "cpu", "--runs", str(tmp_path), "--only", "face", "motion"]
    assert gpu_half_hour.main(given) == 1
    said = capsys.readouterr().out
    assert "VASA_FACES names no folder" in said and "done: nothing" in said


@pytest.mark.slow
def test_smoke_runs_are_trained_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_half_hour, "PROBE", 20)
    monkeypatch.setattr(gpu_half_hour, "SAVING_S", 2.0)
    given = ["--device", "cpu", "--smoke", "--runs", str(tmp_path), "--only", "motion"]
    assert gpu_half_hour.main([*given, "--minutes", "1.5"]) == 0
    steps = json.loads((tmp_path / "motion" / "config.json").read_text())["optim"]["steps"]
    made = read_log(tmp_path / "motion", "train")[-1]["step"]
    assert steps > 20 and made > 0
    if made < steps:
        assert gpu_half_hour.main([*given, "--minutes", "3"]) == 0
        assert read_log(tmp_path / "motion", "train")[-1]["step"] > made
