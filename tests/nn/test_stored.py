"""Arrays and gradients that XLA:CPU shall not compute twice: nothing but their place changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn.stored import from_memory, stored, stored_gradient


@pytest.mark.parametrize("function", [stored, stored_gradient])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_derivatives_are_those_of_the_identity(function, dtype):
    rng = np.random.default_rng(0)
    x, v = (jnp.asarray(rng.normal(size=(3, 4, 5)) * 1e4, dtype) for _ in range(2))
    np.testing.assert_array_equal(jax.jit(jax.vmap(function))(x), x)
    pushed = jax.jit(lambda x, v: jax.jvp(function, (x,), (v,)))(x, v)
    np.testing.assert_array_equal(pushed[0], x)
    np.testing.assert_array_equal(pushed[1], v)
    pulled = jax.jit(lambda x, v: jax.vjp(jax.vmap(function), x)[1](v))(x, v)
    np.testing.assert_array_equal(pulled[0], v)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA:CPU does")
def test_the_gradient_passes_through_a_product_that_nothing_is_fused_into():
    def loss(x):
        return jnp.sin(stored_gradient(jnp.cos(x))).sum()

    text = jax.jit(jax.grad(loss)).lower(jnp.ones((7, 5))).as_text()
    assert text.count("dot_general") == 1
    assert "dot_general" not in jax.jit(loss).lower(jnp.ones((7, 5))).as_text()


def test_a_function_of_what_lies_in_memory_has_its_values_and_derivatives():
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(4, 5)), jnp.float32) for _ in range(2))
    x = x.at[0, 0].set(jnp.nan)  # the first number decides nothing, whatever it is

    def f(tree, y):
        return {"sum": tree["x"] + y, "product": jnp.sin(tree["x"]) * y}

    def through(x, y):
        return from_memory(f, {"x": x}, y)

    for plain, given in ((f, {"x": x}), (lambda a, b: jax.vmap(f)({"x": a}, b), x)):
        expected = plain(given, y)
        got = jax.jit(through if isinstance(given, dict) else jax.vmap(through))(x, y)
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)
    rows = slice(1, None)
    for k in (0, 1):
        expected = jax.grad(lambda x, y: f({"x": x}, y)["product"][rows].sum(), k)(x, y)
        got = jax.jit(jax.grad(lambda x, y: through(x, y)["product"][rows].sum(), k))(x, y)
        np.testing.assert_allclose(got[rows], expected[rows], rtol=1e-6)


def test_numbers_of_two_bytes_lie_in_memory_too():
    x = jnp.arange(6, dtype=jnp.bfloat16)
    got = jax.jit(lambda x: from_memory(jnp.sin, x))(x)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, jnp.sin(x))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA:CPU does")
def test_what_comes_out_of_memory_is_not_computed_for_every_reader():
    def f(x, index, keep):
        y = keep(jnp.exp, x) if keep else jnp.exp(x)
        return y[index] + y[index - 1]

    x, index = jnp.ones((300, 7)), jnp.arange(1, 300)
    for keep, kept in ((None, False), (from_memory, True)):
        compiled = jax.jit(f, static_argnums=2).lower(x, index, keep).compile().as_text()
        assert ("conditional(" in compiled) == kept
