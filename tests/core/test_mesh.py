"""Where arrays lie: rules over names, the automatic choice, what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vasa_jax.core import mesh as meshes
from vasa_jax.core.config import from_json, override, to_json
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
