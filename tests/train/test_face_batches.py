"""Batches of stage 1: each process makes its own rows, and held-out people are read once."""

import dataclasses

import numpy as np
import pytest

from vasa_jax.core.config import load_config
from vasa_jax.data import faces
from vasa_jax.data.face_files import write_face_file
from vasa_jax.data.faces import FacePairs
from vasa_jax.train.face import FaceTask
from vasa_jax.train.volumetric import VolumetricTask

PEOPLE = 6
STAGES = ((FaceTask, "face_256_lite"), (VolumetricTask, "face_512"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Face files of 64 px of six people, two each."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for i in range(2 * PEOPLE):
        write_face_file(
            root / "synthetic" / f"p{i // 2}" / f"{i}.npz",
            images=rng.integers(0, 255, (3, 64, 64, 3), np.uint8),
            motion=rng.normal(size=(3, 54)).astype(np.float32),
            placement=np.ones((3, 3), np.float32), identity=rng.normal(size=4).astype(np.float32),
            shape=np.zeros((5, 3), np.float16), target=np.ones(3, bool),
        )  # fmt: skip
    return root


def task_of(kind, name, folder, **changes):
    """A task with its data alone: nets and heads are not of interest here."""
    cfg = load_config(f"configs/{name}.py:smoke")
    data = dataclasses.replace(
        cfg.data, folder=str(folder), size=64, shares=(("synthetic", 1.0),), held_out=2
    )
    task = object.__new__(kind)
    task.cfg = dataclasses.replace(cfg, data=data, **changes)
    task.pairs = FacePairs(data)
    return task


@pytest.mark.parametrize(("kind", "name"), STAGES)
def test_a_process_makes_its_own_rows_and_no_others(kind, name, folder, monkeypatch):
    task = task_of(kind, name, folder, batch=6)
    made = []
    pair = FacePairs.pair
    monkeypatch.setattr(FacePairs, "pair", lambda self, *a: made.append(a) or pair(self, *a))
    whole = next(task.batches(3))
    assert len(made) == 6
    made.clear()
    some = next(task.batches(3, rows=slice(2, 4)))
    assert len(made) == 2  # as ``train/prefetch.py`` asks for them
    for key in set(whole) - {"window"}:
        np.testing.assert_array_equal(some[key], whole[key][2:4])


def test_microbatches_of_the_full_model_have_different_people_as_neighbours(folder):
    cfg = load_config("configs/face_512.py:smoke")
    task = task_of(VolumetricTask, "face_512", folder, batch=8,
                   optim=dataclasses.replace(cfg.optim, accumulate=4))  # fmt: skip
    identity = {tuple(faces.read_face_file(p)["identity"]): task.pairs.person[p]
                for p in task.pairs.person}  # fmt: skip
    task.cfg = dataclasses.replace(
        task.cfg, data=dataclasses.replace(task.cfg.data, identity_noise=0.0)
    )
    task.pairs = FacePairs(task.cfg.data)
    for _, batch in zip(range(20), task.batches(0), strict=False):
        who = [identity[tuple(row)] for row in batch["identity"]]
        assert all(who[i] != who[i + 4] for i in range(4))  # rows i and i + 4 are a microbatch


@pytest.mark.parametrize(("kind", "name"), STAGES)
def test_held_out_people_are_read_once(kind, name, folder, monkeypatch):
    task = task_of(kind, name, folder)
    read = []
    monkeypatch.setattr(
        faces, "read_face_file", lambda path, f=faces.read_face_file: read.append(path) or f(path)
    )
    first = task._held_out
    count = len(read)
    assert 0 < count and {p.parent.name for p in read} == {"p4", "p5"}
    assert task._held_out is first and len(read) == count and len(first) == 3
