"""When a checkpoint is due, and what is said of those that cannot be written."""

from pathlib import Path

from vasa_jax.checkpoint.train_state import NotSaved
from vasa_jax.train import saving
from vasa_jax.train.log import RunLog, read_log
from vasa_jax.train.saving import Saving


class Background:
    """Checkpoints that are written elsewhere; ``kept`` is what is there, ``fails`` what is not."""

    def __init__(self):
        self.kept, self.fails = 20, 0

    def settle(self):
        step, self.fails = self.fails, 0
        if step:
            raise NotSaved(step, Path("run"), "the disk is full")

    wait = settle

    def latest(self):
        return self.kept


def test_failures_are_told_once_and_tried_again_until_there_is_room(tmp_path, monkeypatch):
    said, checkpoints = [], Background()
    with RunLog(tmp_path) as log:
        run = Saving(checkpoints, log, said.append, seed=0, minutes=0.0)
        assert not run.due() and not said  # without minutes nothing is due by itself
        for step in (30, 31):
            checkpoints.fails = step
            monkeypatch.setattr(saving, "RETRY_S", 60.0)
            assert not run.due()  # it has just failed
            monkeypatch.setattr(saving, "RETRY_S", 0.0)
            assert run.due()
        (line,) = said
        assert "checkpoint 30 could not be saved in run: the disk is full" in line
        assert "the last checkpoint is step 20; training goes on" in line
        checkpoints.kept = 32
        assert not run.due()
        assert said[1:] == ["checkpoint 32 is saved: there is room again"]
        checkpoints.fails = 40  # the next time it is news again
        run.due()
        assert len(said) == 3 and "checkpoint 40" in said[2]
    assert [x["step"] for x in read_log(tmp_path, "event")] == [30, 31, 40]
