"""Batches ahead of time: the same ones in the same order, whoever makes them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

from tests.train.toy_task import PureToyTask, ToyConfig
from vasa_jax.core.config import load_config
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import MeshConfig, make_mesh
from vasa_jax.train.face import FaceTask
from vasa_jax.train.prefetch import placed_batches, worker_batches
from vasa_jax.train.volumetric import VolumetricTask


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_worker_processes_make_the_same_batches_in_the_same_order():
    pytest.importorskip("grain")
    task = PureToyTask(ToyConfig())
    for start in (0, 5):  # resuming is asking from another step on
        made = worker_batches(task.batches, start, workers=2)
        for wanted, got, _ in zip(task.batches(start), made, range(5), strict=False):
            assert_same(wanted, got)


class Numbers:
    """Stands in for face files."""

    def batches(self, seed, start, *more, **others):
        yield {"numbers": np.arange(start, start + 3)}


@pytest.mark.parametrize("kind", [FaceTask, VolumetricTask])
def test_workers_can_make_the_batches_of_stage_one(kind):
    """What nets and compiled functions hold cannot be copied to them."""
    cloudpickle = pytest.importorskip("cloudpickle")
    task = object.__new__(kind)
    name = "face_256_lite" if kind is FaceTask else "face_512"
    task.cfg, task.pairs = load_config(f"configs/{name}.py:smoke"), Numbers()
    task.model = threading.Lock()
    copied = cloudpickle.loads(cloudpickle.dumps(task.batches))
    assert_same(next(copied(3)), next(task.batches(3)))


def gone(pid):
    """Whether no process has the number ``pid`` any more, or one that is dead already."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@needs_proc
def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, os, time
        from vasa_jax.train.prefetch import _begin_worker

        def work():
            _begin_worker(0, 1)
            print(os.getpid(), flush=True)
            time.sleep(600)

        if __name__ == "__main__":
            multiprocessing.get_context("spawn").Process(target=work).start()
            time.sleep(600)
        """)
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, signal.SIGINT)  # Ctrl-C reaches it as well, and is not for it
    time.sleep(0.2)
    assert not gone(worker)
    parent.kill()
    parent.wait()
    for _ in range(200):
        if gone(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lives on")


def test_without_grain_a_thread_makes_them_and_a_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    task, said = PureToyTask(ToyConfig()), []
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    made = placed_batches(task, mesh, 3, workers=2, say=said.append)
    assert_same(next(made), next(task.batches(3)))
    assert len(said) == 1 and "grain" in said[0]


def test_a_batch_that_does_not_divide_is_refused_before_it_is_made():
    task = PureToyTask(ToyConfig())
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with pytest.raises(UserError, match="a batch of 8 does not divide over 1 device and 3"):
        next(placed_batches(task, mesh, 0, parts=3))
    assert task.served == []
