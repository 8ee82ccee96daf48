"""Counts of work against products and convolutions written out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.runtime.operations import Work, count_work, gather_branches


class Pair(nn.Module):
    def setup(self):
        self.wide = nn.Dense(7)
        self.look = nn.Conv(5, (3, 3), strides=(2, 2))

    def __call__(self, x):
        return self.wide(nn.relu(self.look(x)))


def test_each_module_has_its_own_flops_and_results():
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    params = jax.eval_shape(Pair().init, jax.random.key(0), x)
    table = count_work(Pair().apply, params, x)
    cells = 2 * 4 * 4
    assert table == {
        "look": Work(flops=2 * cells * 5 * 3 * 3 * 4, result_bytes=4 * cells * 5),
        "wide": Work(flops=2 * cells * 7 * 5, result_bytes=4 * cells * 7),
    }
    assert gather_branches(table, 1) == table


def test_loops_count_as_often_as_they_run_and_compiled_parts_once():
    a = jax.ShapeDtypeStruct((6, 3, 4), jnp.float32)
    b = jax.ShapeDtypeStruct((4, 5), jnp.float32)
    one = Work(flops=2 * 3 * 5 * 4, result_bytes=4 * 15)
    looped = count_work(lambda a, b: jax.lax.map(lambda row: jax.jit(jnp.dot)(row, b), a), a, b)
    assert looped == {"": Work(flops=6 * one.flops, result_bytes=6 * one.result_bytes)}
    summed = count_work(
        lambda a, b: jax.lax.scan(lambda t, r: (t + r @ b, None), 0.0 * a[0] @ b, a), a, b
    )
    assert summed == {"": Work(flops=7 * one.flops, result_bytes=2 * one.result_bytes)}
    again = count_work(lambda a, b: jax.checkpoint(jnp.dot)(a[0], b), a, b)
    assert again[""].flops == one.flops


def test_branches_are_summed():
    table = {"a/b": Work(flops=1), "a/c": Work(flops=2, result_bytes=3), "d": Work(flops=4)}
    assert gather_branches(table, 1) == {"a": Work(flops=3, result_bytes=3), "d": Work(flops=4)}
