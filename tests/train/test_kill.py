"""A run that is killed without warning, again and again, ends as if nothing had happened."""

import random
import time

import numpy as np
import pytest

from tests.train.many_devices import finish, job, start
from vasa_jax.checkpoint.train_state import Checkpoints
from vasa_jax.core.tree import flatten
from vasa_jax.train.log import read_log

STEPS = 30


def reached(workdir):
    """The last step in the log, 0 before there is one."""
    lines = read_log(workdir) if (workdir / "log.jsonl").exists() else []
    return lines[-1]["step"] if lines else 0


def everything(workdir):
    """All arrays of the last checkpoint, by name."""
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == STEPS
        items = {name: checkpoints.read(name) for name in ("params", "ema", "rest")}
    return {name: np.asarray(leaf) for name, leaf in flatten(items).items() if "key" not in name}


def kill_and_go_on(tmp_path, kills, *, devices=1, seed=0):
    rng = random.Random(seed)
    settings = {"loop__checkpoint_every": 2, "delay_s": 0.02, "loop__mesh__whole_below": 0}
    one = job("toy", tmp_path / "killed", STEPS, **settings)
    for n in range(kills):
        process = start([one], devices=devices)
        target = reached(tmp_path / "killed") + rng.randint(1, max(2, STEPS // (kills + 1)))
        while reached(tmp_path / "killed") < min(target, STEPS - 2):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.04))  # anywhere in a step, or while a checkpoint is written
        process.kill()
        process.communicate()
        assert reached(tmp_path / "killed") < STEPS, f"kill {n} came too late"
    finish(start([one, job("toy", tmp_path / "whole", STEPS, **settings)], devices=devices))
    killed, whole = everything(tmp_path / "killed"), everything(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name], err_msg=name)
    rows = [[(x["step"], x["loss"]) for x in read_log(tmp_path / n)] for n in ("killed", "whole")]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS  # each batch once, in order
    assert sum(e["event"] == "resume" for e in read_log(tmp_path / "killed", "event")) >= 1
    assert not list((tmp_path / "killed" / "checkpoints").glob("*tmp*"))


def test_two_kills_change_nothing(tmp_path):
    kill_and_go_on(tmp_path, 2)


@pytest.mark.slow
def test_ten_kills_change_nothing_on_sharded_parameters(tmp_path):
    kill_and_go_on(tmp_path, 10, devices=2, seed=1)
