"""One device, eight, and two processes train alike; a checkpoint of one goes on on another.

The reference is always the same run on this process's one device. Sums over devices are taken in
another order, so losses may differ by rounding: ``RTOL``, where the log keeps six digits.
"""

import signal
import time

import numpy as np
import pytest

from tests.train.many_devices import finish, job, start, train, train_together
from vasa_jax.checkpoint.train_state import Checkpoints, read_params
from vasa_jax.core.tree import flatten
from vasa_jax.train.log import read_log

RTOL = 1e-4
SPLIT = {"loop__mesh__whole_below": 0}  # the toy is small: split what can be split


def losses(workdir):
    return [line["loss"] for line in read_log(workdir)]


def event(workdir, name):
    return next(line for line in read_log(workdir, "event") if line["event"] == name)


def assert_like(params, workdir):
    got = flatten(read_params(workdir, item="params")[1])
    for name, leaf in flatten(params).items():
        np.testing.assert_allclose(got[name], leaf, rtol=RTOL, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The toy on one device: final state, folder."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    return train(job("toy", workdir, 4)).state, workdir


def test_eight_devices_train_as_one(alone, tmp_path):
    state, reference = alone
    jobs = [
        job("toy", tmp_path / "data", 4, **SPLIT),
        job("toy", tmp_path / "moved", 2, loop__mesh__fsdp=8, **SPLIT),
        job("toy", tmp_path / "moved", 4, loop__mesh__data=4, loop__mesh__fsdp=2, **SPLIT),
    ]
    finish(start(jobs, devices=8))
    for name in ("data", "moved"):
        np.testing.assert_allclose(losses(tmp_path / name), losses(reference), rtol=RTOL)
        assert_like(state.params, tmp_path / name)  # read on this one device
    # Sharded means that a device has an eighth, of the optimiser and the average, too.
    whole, part = event(reference, "compiled"), event(tmp_path / "moved", "compiled")
    assert 8 * part["params"] == whole["params"] == 4 * (4 * 16 + 16)
    assert 8 * part["ema"] == whole["ema"] and part["opt_state"] - 8 == (2 * whole["params"]) / 8
    assert event(tmp_path / "data", "compiled")["params"] == whole["params"]
    assert "MB/device" in (tmp_path / "moved" / "parameters.txt").read_text()
    # And back on one device.
    goes_on = train(job("toy", tmp_path / "moved", 6)).state
    straight = train(job("toy", tmp_path / "straight", 6)).state
    assert_close(goes_on, straight)


def assert_close(one, other):
    wanted = flatten(other.params)
    for name, leaf in flatten(one.params).items():
        np.testing.assert_allclose(leaf, wanted[name], rtol=RTOL, atol=1e-5, err_msg=name)


def test_two_processes_train_as_one(alone, tmp_path):
    state, reference = alone
    run = tmp_path / "run"
    jobs = [
        job("toy", run, 2, loop__mesh__fsdp=2, **SPLIT),
        job("toy", run, 4, loop__mesh__fsdp=4, loop__picture_every=4, loop__evaluate_every=4,
            **SPLIT),
    ]  # fmt: skip
    said = train_together(jobs, processes=2, devices=2)
    np.testing.assert_allclose(losses(run), losses(reference), rtol=RTOL)
    assert_like(state.params, run)
    # One writes, and each line once; evaluation saw whole arrays.
    assert sum("step 4/4" in text for text in said) == 1
    assert len((run / "log.jsonl").read_text().splitlines()) == len(
        [*read_log(run), *read_log(run, "event"), *read_log(run, "evaluate")]
    )
    assert [line["step"] for line in read_log(run, "evaluate")] == [4]
    assert (run / "pictures" / "kernel" / "00000004.png").is_file()
    assert "2 process(es)" in event(run, "start")["mesh"]


def test_a_signal_to_one_process_ends_both_at_the_same_step(tmp_path):
    run = tmp_path / "run"
    one = job("toy", run, 2000, delay_s=0.02, loop__log_every=1)

    def interrupt(processes):
        while len(read_log(run) if (run / "log.jsonl").exists() else []) < 3:
            assert all(p.poll() is None for p in processes)
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)  # the one that does not write

    train_together([one], processes=2, devices=1, meanwhile=interrupt)
    end = event(run, "interrupted")
    assert 3 <= end["step"] < 2000
    with Checkpoints(run) as checkpoints:
        assert checkpoints.latest() == end["step"]


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """The motion model on one device, compiled as quickly as the others: folder."""
    workdir = tmp_path_factory.mktemp("motion") / "run"
    finish(start([job("motion", workdir, 3)], devices=1))
    return workdir


@pytest.mark.slow
def test_two_processes_train_the_motion_model_each_on_its_windows(motion, tmp_path):
    train_together([job("motion", tmp_path / "two", 3, loop__mesh__fsdp=2)], processes=2, devices=1)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(motion), rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_the_motion_model_trains_alike_on_four_devices(motion, tmp_path, fsdp):
    settings = {"loop__mesh__fsdp": fsdp, "loop__mesh__whole_below": 100}
    finish(start([job("motion", tmp_path / "four", 3, **settings)], devices=4))
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(motion), rtol=2e-4)
    evaluations = [
        [line["aperture_error"] for line in read_log(folder, "evaluate")]
        for folder in (tmp_path / "four", motion)
    ]
    np.testing.assert_allclose(*evaluations, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["face", "volumetric"])
def test_faces_train_alike_on_one_device_and_on_four(task, tmp_path):
    settings = {"loop__mesh__fsdp": 2, "loop__mesh__whole_below": 100}
    finish(start([job(task, tmp_path / "one", 3)], devices=1))
    finish(start([job(task, tmp_path / "four", 3, **settings)], devices=4))
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "one"), rtol=5e-4)
    part, whole = (event(tmp_path / n, "compiled")["params"] for n in ("four", "one"))
    assert part < 0.6 * whole
