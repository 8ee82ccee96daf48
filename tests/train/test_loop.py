import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from tests.full_disk import files_up_to
from tests.train.toy_task import BATCH, ToyConfig, ToyTask, truth
from vasa_jax.core.config import to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import batch_rows
from vasa_jax.core.tree import flatten
from vasa_jax.train import saving
from vasa_jax.train.log import Progress, read_log
from vasa_jax.train.loop import Diverged, LoopConfig, run
from vasa_jax.train.optim import OptimConfig
from vasa_jax.train.prefetch import Prefetch

NOISY = ToyConfig(noise=0.3)


def train(cfg, workdir, steps, task=None, **more):
    task = task or cfg.task()
    return run(
        task,
        workdir,
        steps=steps,
        loop=more.pop("loop", cfg.loop),
        seed=cfg.seed,
        config=to_json(cfg),
        **more,
    )


def arrays(state):
    table = flatten(dataclasses.replace(state, key=jax.random.key_data(state.key)))
    return {name: np.asarray(leaf) for name, leaf in table.items()}


def assert_identical(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def events(workdir):
    return [line["event"] for line in read_log(workdir, "event")]


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path):
    whole = train(NOISY, tmp_path / "whole", 4)
    train(NOISY, tmp_path / "parts", 2)
    second = NOISY.task()
    parts = train(NOISY, tmp_path / "parts", 4, task=second)
    assert_identical(whole.state, parts.state)
    assert second.served[:2] == [2, 3]
    losses = [[line["loss"] for line in read_log(tmp_path / w)] for w in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    fresh = ["start", "compiled", "finished"]
    assert events(tmp_path / "parts") == [*fresh, "resume", *fresh[1:]]


def test_fitting_a_line_finds_the_line(tmp_path):
    optim = OptimConfig(lr=0.1, steps=300, warmup=5, weight_decay=0.0, final_fraction=0.0)
    cfg = ToyConfig(optim=optim, loop=LoopConfig(log_every=100, picture_every=0, evaluate_every=0))
    state = train(cfg, tmp_path, 300).state
    np.testing.assert_allclose(state.params["dense"]["kernel"], truth(2), atol=1e-3)
    np.testing.assert_allclose(state.params["dense"]["bias"], 0.5, atol=1e-3)
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_can_go_on(tmp_path, number, capfd):
    class Interrupted(ToyTask):
        def batches(self, start_step):
            for batch in super().batches(start_step):
                if self.served[-1] == 3:
                    os.kill(os.getpid(), number)
                yield batch

    loop = dataclasses.replace(NOISY.loop, prefetch=1)
    before = signal.getsignal(number)
    outcome = train(NOISY, tmp_path / "a", 50, task=Interrupted(NOISY), loop=loop)
    assert outcome.reason == "interrupted" and 0 < outcome.step < 6
    assert signal.getsignal(number) is before
    assert f"--workdir {tmp_path / 'a'} continues" in capfd.readouterr().err
    assert "interrupted" in events(tmp_path / "a")
    resumed = train(NOISY, tmp_path / "a", 6)
    assert_identical(resumed.state, train(NOISY, tmp_path / "b", 6).state)


def test_a_signal_before_the_first_step_says_that_nothing_was_saved(tmp_path, capfd):
    class Early(ToyTask):
        def pictures(self, state, step):
            os.kill(os.getpid(), signal.SIGINT)
            return {}

    with pytest.raises(KeyboardInterrupt):
        train(NOISY, tmp_path, 5, task=Early(NOISY))
    said = capfd.readouterr().err
    assert "SIGINT: ending; nothing is to be saved, no step is done yet" in said
    assert "saved at" not in said
    assert not list((tmp_path / "checkpoints").iterdir())
    assert train(NOISY, tmp_path, 2).step == 2  # and the folder is as good as new


def test_a_signal_before_the_first_step_of_a_resumed_run_leaves_its_checkpoint(tmp_path, capfd):
    class Early(ToyTask):
        def batches(self, start_step):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)  # a slow disk; nobody waits for it
            yield

    train(NOISY, tmp_path, 2)
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        train(NOISY, tmp_path, 5, task=Early(NOISY))
    assert ended.value.code == 128 + signal.SIGTERM and time.monotonic() - began < 20
    assert "the last checkpoint is step 2" in capfd.readouterr().err
    assert train(NOISY, tmp_path, 3).step == 3


@pytest.mark.parametrize("what", ["evaluate", "batches"])
def test_a_signal_waits_for_no_evaluation_and_no_batch(tmp_path, what):
    class Slow(ToyTask):
        def wait(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

        def evaluate(self, state):
            if what == "evaluate" and int(state.step) == 2:
                self.wait()
            return {}

        def batches(self, start_step):
            for batch in super().batches(start_step):
                if what == "batches" and self.served[-1] == 2:
                    # Until both before are trained on, and compiling was waited for.
                    while not any(row["step"] == 2 for row in read_log(tmp_path / "a")):
                        time.sleep(0.05)
                    self.wait()
                yield batch

    began = time.monotonic()
    loop = dataclasses.replace(NOISY.loop, log_every=1)
    outcome = train(NOISY, tmp_path / "a", 6, task=Slow(NOISY), loop=loop)
    assert outcome.reason == "interrupted" and outcome.step == 2
    assert time.monotonic() - began < 20
    resumed = train(NOISY, tmp_path / "a", 4)
    assert_identical(resumed.state, train(NOISY, tmp_path / "b", 4).state)


def test_a_loss_that_is_no_number_stops_and_keeps_the_batch(tmp_path):
    cfg = dataclasses.replace(NOISY, poison_step=3)
    loop = dataclasses.replace(cfg.loop, checkpoint_every=2, log_every=50)
    with pytest.raises(Diverged, match=r"step 3: .*loss nan.*last checkpoint is step 2"):
        train(cfg, tmp_path, 6, loop=loop)
    kept = np.load(tmp_path / "diverged_3.npz")
    expected = next(cfg.task().batches(3))
    for name in ("x", "y"):
        np.testing.assert_array_equal(kept[name], expected[name])
    assert events(tmp_path)[-1] == "diverged"
    # The checkpoint before is sound: healthy data continue from it.
    state = train(NOISY, tmp_path, 6).state
    assert np.isfinite(np.asarray(state.params["dense"]["kernel"])).all()


def test_the_log_says_what_happened(tmp_path):
    train(NOISY, tmp_path, 4, loop=dataclasses.replace(NOISY.loop, log_every=2))
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert {"loss", "grad_norm", "lr", "samples_per_s", "data_wait"} <= line.keys()
        assert line["samples_per_s"] > 0 and 0 <= line["data_wait"] <= 1
    assert [line["step"] for line in read_log(tmp_path, "evaluate")] == [0, 2, 4]
    pictures = sorted(p.name for p in (tmp_path / "pictures" / "kernel").iterdir())
    assert pictures == ["00000000.png", "00000002.png", "00000004.png"]
    assert json.loads((tmp_path / "config.json").read_text()) == to_json(NOISY)
    assert json.loads((tmp_path / "stats.json").read_text()) == {"mean": [0.5, 0.5]}
    assert "total" in (tmp_path / "parameters.txt").read_text()


def test_logged_loss_is_the_mean_over_the_interval(tmp_path):
    train(NOISY, tmp_path / "each", 4)
    train(NOISY, tmp_path / "pairs", 4, loop=dataclasses.replace(NOISY.loop, log_every=2))
    each = [line["loss"] for line in read_log(tmp_path / "each")]
    pairs = [line["loss"] for line in read_log(tmp_path / "pairs")]
    np.testing.assert_allclose(pairs, np.mean(np.reshape(each, (2, 2)), axis=1), rtol=1e-4)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    train(NOISY, tmp_path, 5, loop=dataclasses.replace(NOISY.loop, checkpoint_every=1, keep=2))
    folders = sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir())
    assert folders == ["4", "5"]


def test_minutes_also_make_checkpoints(tmp_path):
    loop = dataclasses.replace(NOISY.loop, checkpoint_every=0, checkpoint_minutes=1e-9, keep=9)
    train(NOISY, tmp_path, 3, loop=loop)
    folders = sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir())
    assert folders == ["1", "2", "3"]


def test_resume_never_refuses_a_used_folder(tmp_path):
    train(NOISY, tmp_path, 1)
    with pytest.raises(UserError, match="already holds a run at step 1"):
        train(NOISY, tmp_path, 2, resume="never")


def test_resuming_another_shape_names_the_parameter(tmp_path):
    train(NOISY, tmp_path, 1)
    with pytest.raises(UserError, match=r"does not fit this config: dense/bias"):
        train(dataclasses.replace(NOISY, width=3), tmp_path, 2)


def test_resuming_with_another_optimiser_names_what_differs_in_one_line(tmp_path, capfd):
    train(NOISY, tmp_path, 1)
    other = dataclasses.replace(NOISY, optim=dataclasses.replace(NOISY.optim, clip_norm=0.0))
    with pytest.raises(UserError, match=r"does not fit .* rest/opt_state.*optim.clip_norm: 1.0 ->"):
        train(other, tmp_path, 2)
    assert "Traceback" not in capfd.readouterr().err


def test_resuming_tells_what_changed_in_the_config(tmp_path):
    train(NOISY, tmp_path, 1)
    train(dataclasses.replace(NOISY, noise=0.5), tmp_path, 2)
    resume = [line for line in read_log(tmp_path, "event") if line["event"] == "resume"]
    assert resume[0]["changed"] == ["noise: 0.3 -> 0.5"]


def test_a_task_can_start_from_other_weights(tmp_path):
    class Warm(ToyTask):
        def initial_params(self, params):
            return jax.tree.map(lambda x: np.full(x.shape, 7.0, np.float32), params)

        def pictures(self, state, step):
            if step == 0:
                np.testing.assert_array_equal(state.params["dense"]["kernel"], 7.0)
                np.testing.assert_array_equal(state.ema["dense"]["kernel"], 7.0)
            return {}

    assert train(NOISY, tmp_path, 1, task=Warm(NOISY)).step == 1


def test_pictures_that_fail_late_do_not_end_the_run(tmp_path):
    class Fails(ToyTask):
        def pictures(self, state, step):
            if step:
                raise OSError("disk")
            return {}

    assert train(NOISY, tmp_path, 4, task=Fails(NOISY)).reason == "finished"
    assert "look_failed" in events(tmp_path)


class FullFrom(ToyTask):
    """No file grows from the batch of step ``full`` (once ``kept`` is there) to ``free``'s."""

    def __init__(self, cfg, stack, full, free, kept):
        super().__init__(cfg)
        self.stack, self.full, self.free, self.kept = stack, full, free, kept

    def batches(self, start_step):
        for batch in super().batches(start_step):
            time.sleep(0.1)  # until the steps before are done
            if self.served[-1] == self.full:
                while not self.kept.exists():
                    time.sleep(0.01)
                self.stack.enter_context(files_up_to(20))
            if self.served[-1] == self.free:
                self.stack.close()
            yield batch


@pytest.fixture
def said(monkeypatch):
    """The lines of a run; what the test's own output goes to may be full, too."""
    lines = []
    monkeypatch.setattr(Progress, "say", lambda self, text: lines.append(text))
    return lines


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path, monkeypatch, said):
    monkeypatch.setattr(saving, "RETRY_S", 0.01)
    loop = dataclasses.replace(NOISY.loop, checkpoint_every=2, prefetch=1)
    with contextlib.ExitStack() as stack:
        task = FullFrom(NOISY, stack, 5, 12, tmp_path / "a" / "checkpoints" / "2")
        outcome = train(NOISY, tmp_path / "a", 16, task=task, loop=loop)
    assert outcome.reason == "finished"
    assert_identical(outcome.state, train(NOISY, tmp_path / "b", 16, loop=loop).state)
    rows = [[(x["step"], x["loss"]) for x in read_log(tmp_path / n)] for n in ("a", "b")]
    assert rows[0] == rows[1] and len(rows[0]) == 16
    for part in ("could not be saved", "log.jsonl cannot be written", "keeping a picture failed",
                 "the logs can be written again"):  # fmt: skip
        assert sum(part in line for line in said) == 1, (part, said)
    assert "save_failed" in events(tmp_path / "a")
    left = [p.name for p in (tmp_path / "a").rglob("*") if ".part" in p.name or "tmp" in p.name]
    assert not left


def test_a_run_that_cannot_save_its_end_says_where_it_goes_on(tmp_path, said):
    loop = dataclasses.replace(NOISY.loop, checkpoint_every=2)
    with contextlib.ExitStack() as stack:
        task = FullFrom(NOISY, stack, 4, -1, tmp_path / "a" / "checkpoints" / "2")
        with pytest.raises(UserError) as ended:
            train(NOISY, tmp_path / "a", 6, task=task, loop=loop)
    assert "checkpoint 6 could not be saved" in str(ended.value)
    kept = int(re.search(r"the last checkpoint is step (\d)", str(ended.value))[1])
    assert f"then the same command continues from step {kept}" in str(ended.value)
    resumed = train(NOISY, tmp_path / "a", 6, loop=loop)
    assert f"resumed from step {kept} in {tmp_path / 'a'}" in said
    assert_identical(resumed.state, train(NOISY, tmp_path / "b", 6, loop=loop).state)


def test_a_workdir_that_is_none_is_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="file is a file; give another name"):
            train(NOISY, workdir, 1)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for call in ("pathlib.Path.mkdir", "tempfile.TemporaryFile"):
        with monkeypatch.context() as patch, pytest.raises(UserError, match="read-only"):
            patch.setattr(call, refuse)
            train(NOISY, tmp_path / "run", 1)


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path):
    pictures = tmp_path / "pictures" / "kernel"
    pictures.mkdir(parents=True)
    for left in (".config.4978.part.json", "diverged_3.part"):
        (tmp_path / left).write_text("{")
    (pictures / ".00000002.4978.part.png").write_text("P")
    (tmp_path / "notes.txt").write_text("the user's own")
    train(NOISY, tmp_path, 1)
    assert not [p for p in tmp_path.rglob("*") if "part" in p.suffixes or ".part" in p.name]
    assert (tmp_path / "notes.txt").exists()


def test_two_runs_cannot_share_a_folder(tmp_path):
    class Nested(ToyTask):
        def pictures(self, state, step):
            with pytest.raises(UserError, match="another run is training"):
                train(NOISY, tmp_path, 2)
            return {}

    train(NOISY, tmp_path, 1, task=Nested(NOISY))


def test_batches_that_end_end_the_run(tmp_path):
    class Short(ToyTask):
        def batches(self, start_step):
            for _, batch in zip(range(2), super().batches(start_step), strict=False):
                yield batch

    assert train(NOISY, tmp_path, 9, task=Short(NOISY)).step == 2


def test_an_error_in_the_batches_comes_out(tmp_path):
    class Broken(ToyTask):
        def batches(self, start_step):
            raise UserError("no clips in this folder")
            yield

    with pytest.raises(UserError, match="no clips"):
        train(NOISY, tmp_path, 2, task=Broken(NOISY))


def test_prefetch_keeps_order_and_its_thread_ends():
    before = set(threading.enumerate())
    with Prefetch(iter(range(100)), size=3) as items:
        assert [next(items) for _ in range(10)] == list(range(10))
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_the_trainer_imports_without_media_or_data_libraries():
    code = (
        "import sys; blocked = ('grain', 'soundfile', 'av', 'cv2', 'ai_edge_litert', 'numba')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "import vasa_jax.train.loop, vasa_jax.train.optim, vasa_jax.checkpoint.release\n"
        "import vasa_jax.cli.train, vasa_jax.cli.release"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_samples_per_step_are_counted():
    assert batch_rows(next(ToyTask(NOISY).batches(0))) == BATCH
