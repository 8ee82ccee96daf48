"""The full stage 1 on whatever machine this is: one update and one rendered batch at 512 px.

    pytest -m slow tests/e2e/test_full_size.py -s

Needs 22 GB and, on two CPU cores, half an hour, five to seven minutes of which compile;
prints what it took.
"""

import json
import math
import resource
import subprocess
import sys
import time

import pytest

from vasa_jax.train.log import read_log


@pytest.mark.slow
def test_one_full_size_update_and_forward_pass(tmp_path):
    run = tmp_path / "run"
    settings = {
        "data.folder": "example", "batch": 2, "optim.steps": 1, "loop.log_every": 1,
        "loop.evaluate_every": 0, "loop.picture_every": 1, "loop.checkpoint_every": 1000,
        "model.precision.compute": "float32", "discriminator.precision.compute": "float32",
    }  # fmt: skip
    words = [f"--set={name}={value}" for name, value in settings.items()]
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "vasa_jax",
        "train",
        "--config",
        "configs/face_512.py",
    ]
    done = subprocess.run([*command, "--workdir", str(run), *words])
    assert done.returncode == 0
    (row,) = read_log(run, "train")
    assert math.isfinite(row["loss"]) and row["grad_norm"] > 0
    assert {"perceptual", "face", "adversarial", "transfer_l1", "discriminator"} <= set(row)
    assert list((run / "pictures").glob("*/*.png"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(json.dumps({"peak_gb": round(peak, 2), "seconds": round(time.monotonic() - began)}))
