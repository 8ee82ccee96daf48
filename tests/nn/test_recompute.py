"""Activations made again: the same gradients as without, and memory that is really saved."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn.recompute import recomputed, recomputed_block
from vasa_jax.nn.residual import NormBlock

pytestmark = pytest.mark.usefixtures("broadcasting")


def wide(x, w):
    return jnp.tanh(jnp.tanh(x @ w) @ w.T)


def chain(block):
    def loss(weights, x):
        for w in weights:
            x = block(x, w)
        return jnp.square(x).sum()

    return loss


def test_values_and_gradients_are_those_of_the_function_itself():
    keys = jax.random.split(jax.random.key(0), 4)
    weights = [0.3 * jax.random.normal(k, (8, 32)) for k in keys[:3]]
    x = jax.random.normal(keys[3], (5, 8))
    plain, again = (
        jax.jit(jax.value_and_grad(chain(f), argnums=(0, 1)))(weights, x)
        for f in (wide, recomputed(wide))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, again)


def test_nothing_but_what_is_asked_for_gets_a_gradient():
    def f(table, x, unused):
        return {"product": table["w"] * x, "rest": x + table["count"].astype(jnp.float32)}

    table = {"w": jnp.arange(3.0), "count": jnp.arange(3)}  # whole numbers have no gradient

    def loss(w, x):
        made = recomputed(f)({**table, "w": w}, x, None)
        return (made["product"] * jnp.array([1.0, 2.0, 3.0])).sum()  # "rest" is not used

    x = jnp.array([4.0, 5.0, 6.0])
    np.testing.assert_allclose(jax.grad(loss)(table["w"], x), [4.0, 10.0, 18.0])
    np.testing.assert_allclose(jax.grad(loss, 1)(table["w"], x), [0.0, 2.0, 6.0])


def test_not_a_number_stays_one():
    found = jax.grad(lambda x: recomputed(jnp.sqrt)(x))(jnp.float32(-1.0))
    assert np.isnan(found)


def test_memory_is_saved():
    """Twelve layers whose inner activations are sixteen times what goes between them."""
    weights = [jax.ShapeDtypeStruct((64, 1024), jnp.float32)] * 12
    x = jax.ShapeDtypeStruct((1024, 64), jnp.float32)

    def peak(block) -> int:
        compiled = jax.jit(jax.grad(chain(block))).lower(weights, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak(recomputed(wide)) < 0.3 * peak(wide)


class Nets(nn.Module):
    kind: type[nn.Module]

    @nn.compact
    def __call__(self, x, code):
        for i in range(2):
            x = self.kind(16, shortcut=1, name=f"block_{i}")(x, code)
        return self.kind(32, name="last")(x)


def test_a_block_keeps_its_names_values_and_gradients():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    code = jax.random.normal(jax.random.key(1), (2, 4, 6))
    plain, again = Nets(NormBlock), Nets(recomputed_block(NormBlock))
    params = plain.init(jax.random.key(2), x, code)
    jax.tree.map(np.testing.assert_array_equal, params, again.init(jax.random.key(2), x, code))

    def gradients(nets):
        def loss(params, x):
            return jnp.square(nets.apply(params, x, code)).mean()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
        gradients(plain), gradients(again),
    )  # fmt: skip
