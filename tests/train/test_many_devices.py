"""One device, eight, and two processes train alike; a checkpoint of one goes on on another.

The reference is always the same run on this process's one device. Sums over devices are taken in
another order, so losses may differ by rounding: ``RTOL``, where the log keeps six digits.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.train.many_devices import QUICK, ROOT, finish, job, start, train, train_together
from vasa_jax.checkpoint.train_state import Checkpoints, read_params
from vasa_jax.core.tree import flatten
from vasa_jax.train.distributed import processes_on_host
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


def eight_devices(*words, **environment):
    """A program of Python's that sees eight devices."""
    flags = f"--xla_force_host_platform_device_count=8 {QUICK}"
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "VASA_CACHE": "off", "XLA_FLAGS": flags}
        | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize(("environment", "count"), [
    ({}, None),
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1"}, 1),
    ({"SLURM_TASKS_PER_NODE": "8(x2)", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, 1),
    ({"SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2"}, 1),
    ({"SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "1"}, 2),
    ({"SLURM_TASKS_PER_NODE": "1", "SLURM_NODEID": "3"}, None),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
])  # fmt: skip
def test_processes_on_a_host_are_counted(environment, count):
    assert processes_on_host(environment) == count


@pytest.mark.parametrize("tasks", ["1(x2)", "2"])
def test_the_only_task_of_a_host_sees_all_of_its_devices(tasks):
    """JAX shows a task of SLURM one GPU, which fits one task for each; ours is one per host."""
    code = (
        "import jax\nfrom jax._src import xla_bridge\nfrom vasa_jax.train import distributed\n"
        "distributed.initialize(coordinator=None, processes=None, process_id=None, cluster=True)\n"
        "print('shown', xla_bridge.CUDA_VISIBLE_DEVICES.value, jax.device_count())"
    )
    alone = tasks == "1(x2)"
    slurm = {
        "SLURM_JOB_ID": str(os.getpid() + alone), "SLURM_NTASKS": "2",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "2" if alone else "1",
        "SLURM_STEP_TASKS_PER_NODE": tasks,
    }  # fmt: skip
    ranks = [
        {"SLURM_PROCID": str(i), "SLURM_LOCALID": "0" if alone else str(i),
         "SLURM_NODEID": str(i) if alone else "0"}
        for i in range(2)
    ]  # fmt: skip
    said = finish(*(eight_devices("-c", code, **slurm, **rank) for rank in ranks))
    for i, text in enumerate(said):
        assert f"shown {'all' if alone else i} 16" in text


def test_a_batch_that_does_not_divide_is_told_before_anything_is_loaded(tmp_path):
    run = tmp_path / "run"
    words = ["-m", "vasa_jax", "train", "--workdir", run]
    words += ["--config", "configs/face_256_lite.py", "--set", "data.folder=/nowhere"]
    process = eight_devices(*words)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and len(said.splitlines()) == 1
    assert "a batch of 4 does not divide over 8 devices" in said and "--set batch=8" in said
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "used"), [
    ("face_256_lite", 4), ("face_256", 4), ("face_512", 4), ("motion_lite", 8),
    ("motion_base", 8), ("motion_encoder", 8),
])  # fmt: skip
def test_smoke_variants_run_on_eight_devices(name, used, tmp_path):
    words = ["-m", "vasa_jax", "train", "--workdir", tmp_path / "run", "--steps", 1]
    words += ["--config", f"configs/{name}.py:smoke", "--set", "loop.picture_every=0"]
    (said,) = finish(eight_devices(*words, "--set", "loop.evaluate_every=0"))
    assert "finished 1 steps" in said
    assert f" = {used} x " in event(tmp_path / "run", "start")["mesh"]
    assert ("of 8 devices are used" in said) == (used < 8)
