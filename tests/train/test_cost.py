import jax
import jax.numpy as jnp
import pytest

from vasa_jax.train.cost import count_flops

DENSE = 2 * 5 * 7 * 11  # a product for every row, input and output, and its sum


def flops(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return count_flops(jax.make_jaxpr(function)(*arrays))


def test_products_are_counted_as_on_paper():
    assert flops(jnp.matmul, (5, 7), (7, 11)) == DENSE
    assert flops(jax.jit(jnp.matmul), (5, 7), (7, 11)) == DENSE
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (3, 5, 7), (3, 7, 11)) == 3 * DENSE


def test_a_gradient_by_both_arguments_costs_twice_the_forward_pass():
    def loss(a, b):
        return jnp.square(a @ b).sum()

    assert flops(jax.grad(loss, (0, 1)), (5, 7), (7, 11)) == 3 * DENSE


def test_a_loop_counts_as_often_as_it_runs():
    def repeat(a, w):
        return jax.lax.scan(lambda c, _: (jax.checkpoint(jnp.matmul)(c, w), None), a, length=9)[0]

    assert flops(repeat, (5, 7), (7, 7)) == 9 * 2 * 5 * 7 * 7


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_and_their_gradients(groups):
    def conv(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip

    shapes = (2, 8, 8, 4), (3, 3, 4 // groups, 6)
    one = 2 * (2 * 8 * 8) * 6 * 9 * 4 / groups
    assert flops(conv, *shapes) == one
    # By the input it is a convolution of the same size; by the kernel, it has as many products.
    by_input = flops(jax.grad(lambda x, k: jnp.square(conv(x, k)).sum()), *shapes)
    assert by_input == 2 * one
