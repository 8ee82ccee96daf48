"""What tools/soak_rolling calls growth and drift."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from vasa_jax.core.space import ARKIT
from vasa_jax.motion.readout import readout_of

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("soak_rolling", ROOT / "tools" / "soak_rolling.py")
assert SPEC is not None and SPEC.loader is not None
soak_rolling = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(soak_rolling)


def hours(drift=0.0, leak=0.0, extra=0.0):
    rng = np.random.default_rng(0)
    blocks = [{"a": rng.normal() + drift * n, "b": rng.normal()} for n in range(36)]
    memory = [
        {"rss_mb": 500.0 + leak * n, "live_arrays": 10, "live_mb": 1.0 + extra * n}
        for n in range(36)
    ]
    return blocks, memory, 12


@pytest.mark.parametrize("fault, compiled, passed", [
    ({}, 0, True),
    ({}, 1, False),
    ({"drift": 0.2}, 0, False),
    ({"leak": 0.5}, 0, False),
    ({"extra": 0.001}, 0, False),
])  # fmt: skip
def test_each_fault_fails_the_soak(fault, compiled, passed):
    got = soak_rolling.verdict(*hours(**fault), compiled)
    assert got["passed"] is passed
    assert got["drifted"] == (["a"] if "drift" in fault else [])


def test_sums_over_hops_are_the_statistics_of_the_whole():
    motion = np.random.default_rng(0).normal(0.3, 0.2, (60, 54)).astype(np.float32)
    sums, last = soak_rolling.Sums(ARKIT, readout_of(ARKIT, {})), None
    for start in range(0, 60, 12):
        last = sums.add(motion[start : start + 12], last)
    got, g = sums.measures(), list(ARKIT.groups["lips"])
    np.testing.assert_allclose(got["mean of lips"], motion[:, g].mean(), rtol=1e-5)
    np.testing.assert_allclose(
        got["spread of lips"], np.sqrt(motion[:, g].var(0).mean()), rtol=1e-5
    )
    closed = motion[:, ARKIT.index["eyeBlink_L"]] > 0.5
    assert got["lids closed"] == closed.mean() > 0
    change = np.square(np.diff(motion[:, g], axis=0)).sum(0).mean() / 60
    np.testing.assert_allclose(got["change of lips"], np.sqrt(change), rtol=1e-5)


@pytest.mark.slow
def test_a_short_soak_of_the_shipped_release_holds_its_memory():
    args = soak_rolling.arguments(
        "--hours 1 --hop 5 --steps 2 --sampler ddim_lids --guided audio --block 4 "
        "--blocks-per-hour 8".split()
    )
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        card = soak_rolling.soak(args)
    assert card["compilations_after_warm_up"] == 0 and card["verdict"]["finite"]
    assert card["frame_counter"] == (card["steps_run"] + 2) * 5
    assert card["verdict"]["live_arrays_growth_mb"] <= 0
    assert "| growth" in soak_rolling.describe(card)
