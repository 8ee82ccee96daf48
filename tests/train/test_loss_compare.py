"""Which logs count as alike, and that a commit trains like itself."""

import json
import math

import pytest

from tools.loss_compare import describe, differences, main

LOG = [
    {"kind": "train", "step": 1, "loss": 2.0, "l1": 0.5, "samples_per_s": 9.0, "step_s": 0.1},
    {"kind": "train", "step": 2, "loss": 1.0, "l1": "nan", "samples_per_s": 8.0, "step_s": 0.2},
]


def changed(step, **entries):
    return [row | entries if row["step"] == step else row for row in LOG]


def test_speed_does_not_count_and_no_number_equals_no_number():
    assert differences(LOG, changed(2, samples_per_s=1.0, step_s=7.0)) == []
    assert "identical" in describe([], 2) and "NOT" not in describe([], 2)


def test_the_last_digit_counts_and_is_named():
    (found,) = differences(LOG, changed(2, loss=1.00001))
    assert found[:2] == (2, "loss") and found.relative == pytest.approx(1e-5, rel=1e-3)
    text = describe([found], 2)
    assert text.startswith("NOT identical") and "| 2 | loss | 1 | 1.00001 | 1e-05 |" in text


def test_what_only_one_of_them_has_differs_infinitely():
    assert differences(LOG, LOG[:1])[0].relative == math.inf
    (found,) = differences(changed(1, extra=1.0), LOG)
    assert found.name == "extra" and found.second is None and "| - |" in describe([found], 2)
    (found,) = differences(LOG, changed(2, l1=0.4))
    assert found.relative == math.inf  # a number where there was none


def test_an_unknown_commit_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["no-such-commit", "."])
    assert ended.value.code == 2 and "no commit no-such-commit" in capsys.readouterr().err


@pytest.mark.slow
def test_a_commit_trains_like_itself(tmp_path, capfd):
    options = ["--config", "configs/motion_lite.py:smoke", "--steps", "3"]
    assert main([".", ".", *options, "--json", str(tmp_path / "same.json")]) == 0
    assert json.loads((tmp_path / "same.json").read_text())["identical"]
    capfd.readouterr()
