import io
import json

import numpy as np
import pytest
from PIL import Image

from vasa_jax.train.log import Progress, RunLog, finite, parameter_table, read_log, save_pictures


def test_a_line_cut_by_a_crash_costs_only_itself(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("train", 1, loss=2.0)
    with log.path.open("a") as file:
        file.write('{"kind": "train", "st')
    with RunLog(tmp_path) as log:
        log.write("train", 2, loss=1.0)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]


def test_the_later_of_two_lines_of_a_step_counts(tmp_path):
    with RunLog(tmp_path) as log:
        for loss in (3.0, 2.0):
            log.write("train", 5, loss=np.float32(loss))
    assert [line["loss"] for line in read_log(tmp_path)] == [2.0]


def test_every_line_is_plain_json_even_with_nan(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("train", 1, loss=float("nan"), rate=float("inf"))

    def refuse(name):
        raise AssertionError(name)

    line = json.loads(log.path.read_text(), parse_constant=refuse)
    assert line["loss"] == "nan" and line["rate"] == "inf"


def test_parameter_table_counts_by_module():
    params = {
        "a": {"x": {"w": np.zeros((10, 3), np.float32)}, "y": np.zeros(5, np.float32)},
        "b": np.zeros((), np.float32),
    }
    rows = {line.split()[0]: line.split()[1] for line in parameter_table(params).splitlines()[1:]}
    assert rows == {"a/x": "30", "a/y": "5", "b": "1", "total": "36"}
    coarse = parameter_table(params, rows=2).splitlines()
    assert [line.split()[0] for line in coarse] == ["module", "a", "b", "total"]


def test_pictures_arrive_as_they_are(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    (path,) = save_pictures(tmp_path, 12, {"faces": image})
    assert path == tmp_path / "pictures" / "faces" / "00000012.png"
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)
    with pytest.raises(ValueError, match="uint8"):
        save_pictures(tmp_path, 1, {"faces": image.astype(np.float32)})


def test_losses_and_gradients_are_watched_for_nan_and_nothing_else():
    assert finite({"loss": 1.0, "psnr": float("inf")})
    assert not finite({"loss": 1.0, "loss_gaze": float("nan")})
    assert not finite({"loss": 1.0, "grad_norm": float("inf")})


def test_progress_is_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(10, 0, stream)
    progress.advance(5)
    progress.report(5, {"grad_norm": 2.0, "loss": 0.25})
    progress.close()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("step 5/10  loss 0.25  grad_norm 2") and "left" in line


def test_progress_on_a_terminal_ends_cleanly():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(10, 0, stream)
    progress.report(5, {"loss": 0.25})
    progress.say("a line [that] stays")
    progress.close()
    progress.say("finished")
    assert "a line [that] stays" in stream.getvalue() and "finished" in stream.getvalue()
