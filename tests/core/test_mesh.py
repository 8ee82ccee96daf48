"""Where arrays lie: rules over names, the automatic choice, what does not fit."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vasa_jax.core import mesh as meshes
from vasa_jax.core.config import from_json, load_config, override, to_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.mesh import MeshConfig
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, make_optimizer
from vasa_jax.train.state import TrainState

SIZES = {"data": 2, "fsdp": 4}
PARAMS = {
    "block": {"kernel": jnp.zeros((12, 16)), "bias": jnp.zeros((16,))},
    "odd": jnp.zeros((3, 5)),
}


def state():
    return TrainState.create(PARAMS, make_optimizer(OptimConfig()), jax.random.key(0))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((12, 16), P(None, "fsdp")),  # the largest that four divides
        ((16, 12), P("fsdp")),
        ((3, 3, 8, 8), P(None, None, "fsdp")),  # the first of equals
        ((30, 8), P(None, "fsdp")),  # four does not divide 30
        ((3, 5), P()),
        ((), P()),
    ],
)
def test_the_automatic_choice_is_the_largest_axis_that_divides(shape, spec):
    assert meshes.partition(MeshConfig(whole_below=0), SIZES, "x", shape) == spec
    assert meshes.partition(MeshConfig(), SIZES, "x", shape) == P()  # all of these are small
    assert meshes.partition(MeshConfig(whole_below=0), SIZES | {"fsdp": 1}, "x", shape) == P()


def test_the_first_rule_that_matches_wins():
    rules = (("bias", ""), ("block/.*", "fsdp"), ("kernel", "-,data"), ("odd", "auto"))
    cfg = MeshConfig(rules=rules, whole_below=0)
    assert meshes.partition(cfg, SIZES, "block/bias", (16,)) == P()
    assert meshes.partition(cfg, SIZES, "block/kernel", (12, 16)) == P("fsdp")
    assert meshes.partition(cfg, SIZES, "head/kernel", (12, 16)) == P(None, "data")
    assert meshes.partition(cfg, SIZES, "odd/w", (4, 3)) == P("fsdp")


def test_optimiser_and_average_lie_where_their_parameters_do():
    cfg = MeshConfig(data=2, fsdp=4, rules=(("kernel", "fsdp"),), whole_below=0)
    mesh = meshes.abstract_mesh(cfg, 8)
    found = meshes.shardings(cfg, mesh, state(), PARAMS)
    adam = found.opt_state[1][0]
    for tree in (found.params, found.ema, adam.mu, adam.nu):
        assert tree["block"]["kernel"].spec == P("fsdp")
        assert tree["block"]["bias"].spec == P("fsdp")  # automatic
        assert tree["odd"].spec == P()
    assert found.key.spec == found.step.spec == adam.count.spec == P()
    # 12 x 16 / 4 and 16 / 4 and 15 scalars of four bytes.
    assert meshes.shard_bytes(state().params, found.params) == 4 * (48 + 4 + 15)


def test_what_does_not_fit_gets_one_line():
    cases = [
        (("nothing", "fsdp"), "'nothing' is found in no parameter's name"),
        (("odd", "fsdp"), r"does not fit odd \[3, 5\]: 3 is not divisible by fsdp=4"),
        (("bias", "-,fsdp"), r"does not fit block/bias \[16\]: it has 1 dim"),
    ]
    for rule, message in cases:
        cfg = MeshConfig(data=2, fsdp=4, rules=(rule,))
        with pytest.raises(UserError, match=message):
            meshes.shardings(cfg, meshes.abstract_mesh(cfg, 8), state(), PARAMS)
    for bad in ({"data": 0}, {"data": -1, "fsdp": -1}, {"rules": (("(", ""),)},
                {"rules": (("w", "-,model"),)}):  # fmt: skip
        with pytest.raises(ValueError, match="mesh"):
            MeshConfig(**bad)


def test_a_mesh_must_use_every_device():
    assert meshes.mesh_sizes(MeshConfig(), 8) == (8, 1)
    assert meshes.mesh_sizes(MeshConfig(fsdp=4), 8) == (2, 4)
    assert meshes.mesh_sizes(MeshConfig(data=2, fsdp=-1), 8) == (2, 4)
    for cfg, asked in ((MeshConfig(fsdp=3), r"\? x 3"), (MeshConfig(data=2), "2 x 1"),
                       (MeshConfig(data=16), "16 x 1")):  # fmt: skip
        with pytest.raises(UserError, match=rf"loop\.mesh \(data x fsdp\) is {asked}, .* 8 dev"):
            meshes.mesh_sizes(cfg, 8)


def test_a_batch_must_divide_over_devices_and_microbatches():
    mesh = meshes.abstract_mesh(MeshConfig(), 4)
    meshes.check_batch(mesh, 8, 2)
    with pytest.raises(UserError, match="a batch of 6 does not divide over 4 devices; .* of 4"):
        meshes.check_batch(mesh, 6)
    with pytest.raises(UserError, match=r"4 devices and 3 microbatches .* multiple of 12"):
        meshes.check_batch(mesh, 8, 3)


SMOKES = ("face_256_lite", "face_256", "face_512", "motion_lite", "motion_base", "motion_encoder",
          "motion_lite_distill")  # fmt: skip


@pytest.mark.parametrize("name", SMOKES)
def test_smoke_variants_run_on_any_number_of_devices(name):
    cfg = load_config(f"configs/{name}.py:smoke")
    rows = getattr(cfg, "batch", None) or cfg.data.batch
    for count in range(1, 18):
        mesh = meshes.fitted(cfg.loop.mesh, rows, cfg.optim.accumulate, count)
        assert 1 <= mesh.devices <= count and rows % mesh.devices == 0
        assert all(rows % more for more in range(mesh.devices + 1, count + 1))  # no more would do


def test_as_many_devices_as_a_batch_divides_over_and_no_others_are_touched():
    whole = MeshConfig(fsdp=2)
    assert meshes.fitted(whole, 5, 1, 8) is whole
    some = dataclasses.replace(whole, devices=-1)
    assert meshes.fitted(some, 12, 1, 8).devices == 6
    assert meshes.fitted(some, 12, 3, 8).devices == 4  # four rows in each microbatch
    assert meshes.fitted(some, 12, 1, 4, processes=2).devices == 6  # three of each process
    assert meshes.fitted(some, 5, 1, 8).devices == 0  # none that fsdp divides: told by the check
    with pytest.raises(ValueError, match="devices"):
        MeshConfig(devices=-2)


def test_the_first_devices_of_each_process_are_used():
    class Device(NamedTuple):
        process_index: int
        id: int

    found = [Device(p, i) for p in (1, 0) for i in range(4)]
    mesh_devices = lambda n: meshes.used_devices(MeshConfig(devices=n), found)  # noqa: E731
    assert mesh_devices(4) == [Device(0, 0), Device(0, 1), Device(1, 0), Device(1, 1)]
    assert mesh_devices(0) == mesh_devices(-1) == sorted(found)
    for wrong in (3, 10):
        with pytest.raises(UserError, match=f"loop.mesh.devices is {wrong}; there are 8"):
            mesh_devices(wrong)


def test_the_message_names_the_setting():
    mesh = meshes.abstract_mesh(MeshConfig(), 8)
    with pytest.raises(UserError, match=r"--set data.batch=16, or .*loop.mesh.devices=N"):
        meshes.check_batch(mesh, 12, option="data.batch")


def test_rows_are_told_from_what_belongs_to_the_batch():
    batch = {"window": np.zeros(4), "x": np.zeros((4, 2)), "y": (np.zeros(4), np.zeros((3, 4)))}
    mask = meshes.row_mask(batch, ("window",))
    assert mask == {"window": False, "x": True, "y": (True, False)}
    assert meshes.batch_rows({"a": np.zeros(()), "b": np.zeros((7, 1))}) == 7
    cut = meshes.cut_rows(batch, slice(1, 3), ("window",))
    assert [x.shape for x in jax.tree.leaves(cut)] == [(4,), (2, 2), (2,), (3, 4)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    loop: LoopConfig = LoopConfig()


def test_every_stage_sets_it_from_the_command_line():
    settings = ["loop.mesh.fsdp=4", 'loop.mesh.rules=[["attention/.*kernel", "-,fsdp"]]']
    cfg = override(Stage(), settings)
    assert cfg.loop.mesh == MeshConfig(fsdp=4, rules=(("attention/.*kernel", "-,fsdp"),))
    assert from_json(Stage, to_json(cfg)) == cfg
    with pytest.raises(UserError, match="names the axis 'model'"):
        override(Stage(), ['loop.mesh.rules=[["w", "model"]]'])
