"""Arrays and gradients that XLA:CPU shall not compute twice: nothing but their place changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn.stored import stored, stored_gradient


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
