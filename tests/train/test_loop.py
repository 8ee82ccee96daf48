import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from tests.train.toy_task import BATCH, ToyConfig, ToyTask, truth
from vasa_jax.core.config import to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import batch_rows
from vasa_jax.core.tree import flatten
from vasa_jax.train.log import read_log
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
