import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.full_disk import files_up_to
from vasa_jax.checkpoint.train_state import Checkpoints, NotSaved, read_params
from vasa_jax.core.errors import UserError


def trees(value):
    w = {"layer": {"w": jnp.full((3, 2), value, jnp.float32)}}
    return {"params": w, "ema": w, "rest": {"key": jax.random.key(5), "extra": {}}}


def test_a_checkpoint_comes_back_exactly_with_its_key(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, meta={"note": "x"}, **trees(1 / 3))
        checkpoints.wait()
        params, _, rest, meta = checkpoints.restore(**jax.eval_shape(lambda: trees(0.0)))
    np.testing.assert_array_equal(params["layer"]["w"], np.float32(1 / 3))
    assert jnp.issubdtype(rest["key"].dtype, jax.dtypes.prng_key)
    assert (jax.random.key_data(rest["key"]) == jax.random.key_data(jax.random.key(5))).all()
    assert meta == {"note": "x", "step": 3}


def test_saving_is_not_disturbed_by_donation(tmp_path):
    # The next step reuses the memory of the state while the checkpoint is being written.
    bump = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    tree = {"w": jnp.zeros((512, 1024), jnp.float32)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, params=tree, ema=tree, rest={"n": jnp.zeros(())}, meta={})
        for _ in range(20):
            tree = bump(tree)
        checkpoints.wait()
        np.testing.assert_array_equal(checkpoints.read("params")["w"], 0.0)


def test_a_release_reads_the_average_of_the_newest_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            both = {**trees(step), "ema": trees(10 * step)["params"]}
            checkpoints.save(step, meta={}, **both)
    step, ema = read_params(tmp_path)
    assert step == 2 and isinstance(ema["layer"]["w"], np.ndarray)
    np.testing.assert_array_equal(ema["layer"]["w"], 20.0)
    np.testing.assert_array_equal(read_params(tmp_path, item="params")[1]["layer"]["w"], 2.0)


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match="is not a training run"):
        read_params(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint in"):
        read_params(tmp_path)


def noise(seed):
    """Trees that no compression makes small."""
    w = {"w": jax.random.normal(jax.random.key(seed), (64, 64))}
    return {"params": w, "ema": w, "rest": {"key": jax.random.key(5)}}


@pytest.mark.parametrize("room", [0, 100, 2000, 10_000])
def test_without_room_the_last_checkpoint_stays_and_the_next_may_follow(tmp_path, room, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, meta={}, **noise(1))
        checkpoints.wait()
        with files_up_to(room), pytest.raises(NotSaved, match="checkpoint 2 could not be saved"):
            checkpoints.save(2, meta={}, **noise(2))
            checkpoints.wait()
        assert checkpoints.latest() == 1
        np.testing.assert_array_equal(checkpoints.read("params")["w"], noise(1)["params"]["w"])
        checkpoints.save(3, meta={}, **noise(3))
        checkpoints.wait()
        assert checkpoints.latest() == 3
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "3"]
    assert not capfd.readouterr().err  # one error, raised; no tracebacks of writers beside it


def test_a_failure_in_the_background_is_found_without_waiting(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with files_up_to(2000), pytest.raises(NotSaved) as failed:
            checkpoints.save(1, meta={}, **noise(1))
            assert checkpoints.latest() is None  # not before it is whole
            while True:
                checkpoints.settle()
        assert failed.value.step == 1


def test_shapes_are_compared_before_anything_is_read(tmp_path, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, meta={}, **noise(1))
        checkpoints.wait()
        shutil.rmtree(tmp_path / "checkpoints" / "1" / "params" / "ocdbt.process_0")
        for part, other in (
            ("params", {"w": jnp.zeros((64, 3))}),
            ("ema", {"v": jnp.zeros((64, 64))}),
            ("rest", {"key": jax.random.key(5), "count": jnp.zeros(())}),
        ):
            with pytest.raises(UserError, match="does not fit this config") as refused:
                checkpoints.restore(**{**noise(1), part: other})
            assert "\n" not in str(refused.value)
        with pytest.raises(UserError, match="cannot be read .* continue from the beginning"):
            checkpoints.restore(**noise(1))
    assert not capfd.readouterr().err


def test_reading_a_run_leaves_what_it_is_writing(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, meta={}, **noise(1))
        checkpoints.wait()
    unfinished = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    assert read_params(tmp_path)[0] == 1
    assert unfinished.is_dir()
    with Checkpoints(tmp_path):  # who trains on clears it away
        assert not unfinished.exists()
