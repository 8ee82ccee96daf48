"""Batches ahead of time: the same ones in the same order, whoever makes them."""

import sys

import jax
import numpy as np
import pytest

from tests.train.toy_task import PureToyTask, ToyConfig
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import MeshConfig, make_mesh
from vasa_jax.train.prefetch import placed_batches, worker_batches


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
