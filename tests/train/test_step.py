"""The step as it would run elsewhere: the full motion model lowered for 256 devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vasa_jax.core import mesh as meshes
from vasa_jax.core.config import load_config
from vasa_jax.core.mesh import MeshConfig
from vasa_jax.core.tree import flatten
from vasa_jax.train.step import TrainStep

pytestmark = pytest.mark.usefixtures("broadcasting")
DEVICES, FSDP = 256, 8


def test_the_full_motion_model_lowers_for_256_devices():
    cfg = load_config("configs/motion_base.py")
    cfg = dataclasses.replace(
        cfg,
        data=dataclasses.replace(cfg.data, folders=(), shares=(), batch=4),
        optim=dataclasses.replace(cfg.optim, accumulate=2),
    )
    task = cfg.task()
    mesh_cfg = MeshConfig(fsdp=FSDP)
    mesh = meshes.abstract_mesh(mesh_cfg, DEVICES)
    step = TrainStep(task, mesh, mesh_cfg)
    rows = meshes.batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2 * DEVICES, *x.shape[1:]), x.dtype, sharding=rows),
        task.windows.batch(0),
    )
    traced = step.trace(batch)
    # It gives back a state of the same shapes, in the same places.
    state, metrics = traced.out_info
    for name, leaf in flatten(step.shapes).items():
        assert flatten(state)[name].shape == leaf.shape, name
    assert metrics["loss"].shape == ()
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert f"mhlo.num_partitions = {DEVICES}" in text
    assert f'<["data"={DEVICES // FSDP}, "fsdp"={FSDP}]>' in text
    # It computes in bfloat16, and keeps and updates in float32.
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert sum("bf16>" in line for line in products) > 0.8 * len(products) > 0
    kinds = {x.dtype for x in jax.tree.leaves(step.shapes)}
    assert {k for k in kinds if jnp.issubdtype(k, jnp.floating)} == {jnp.dtype("float32")}
    # Nearly all of 29 M parameters are split: what is left whole are biases and scales.
    whole = sum(
        int(np.prod(leaf.shape))
        for leaf, at in zip(
            jax.tree.leaves(step.shapes.params), jax.tree.leaves(step.shardings.params), strict=True
        )
        if at.spec == P()
    )
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(step.shapes.params))
    assert total > 28e6 and whole < 0.02 * total
