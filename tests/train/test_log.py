import io
import json
import struct
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from vasa_jax.train.log import (
    Meter,
    Progress,
    RunLog,
    Waiting,
    finite,
    parameter_table,
    read_log,
    save_pictures,
)


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


def tensorboard_scalars(folder):
    """(tag, step) -> value of all event files, the framing read as its description says."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)  # then a sum, the record, a sum
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_numbers_also_go_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    with RunLog(tmp_path, tensorboard=True) as log:
        log.write("event", 0, event="start")
        log.write("train", 1, loss=0.5, rate=float("inf"))
        log.write("evaluate", 2, psnr=31.0)
    scalars = tensorboard_scalars(tmp_path / "tensorboard")
    want = {("train/loss", 1): 0.5, ("train/rate", 1): float("inf"), ("evaluate/psnr", 2): 31.0}
    assert scalars == want


def test_without_tensorboard_a_line_says_so_and_the_log_is_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with RunLog(tmp_path, tensorboard=True) as log:
        assert "pip install" in log.missing and "\n" not in log.missing
        log.write("train", 1, loss=0.5)
    assert [line["loss"] for line in read_log(tmp_path)] == [0.5]
    assert not (tmp_path / "tensorboard").exists()


def test_only_the_first_process_writes(tmp_path):
    with RunLog(tmp_path, tensorboard=True, active=False) as log:
        log.write("train", 1, loss=0.5)
    assert not list(tmp_path.iterdir())


def test_the_meter_splits_a_steps_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    meter = Meter(flops=3e12)
    for _ in range(4):
        clock[0] += 2.0
        meter.add({"loss": 1.0}, 8, 0.5)
    clock[0] += 10.0
    meter.pause(10.0)  # an evaluation
    clock[0] += 3.0
    meter.checkpoint(3.0)
    means = meter.take()
    want = {"step_s": 2.0, "data_s": 0.5, "compute_s": 1.5, "checkpoint_s": 3.0, "data_wait": 0.25,
            "samples_per_s": 4.0, "tflops_per_s": 1.5, "loss": 1.0}  # fmt: skip
    assert means == pytest.approx(want)
    clock[0] += 1.0
    meter.add({"loss": 2.0}, 8, 0.0)
    assert meter.take()["checkpoint_s"] == 0.0


class Computation:
    """An array that is there when ``event`` is."""

    def __init__(self):
        self.event = threading.Event()

    def block_until_ready(self):
        self.event.wait()


def test_waiting_for_data_counts_only_while_the_devices_are_idle():
    def items():
        for _ in range(3):
            time.sleep(0.05)
            yield 1

    with Waiting(items()) as stream:
        assert stream.next()[1] >= 0.05  # nothing is computed yet
        busy = Computation()
        stream.computing(busy)
        assert stream.next() == (1, 0.0)
        busy.event.set()
        time.sleep(0.02)
        assert stream.next()[1] >= 0.05
        assert stream.next()[0] is None
