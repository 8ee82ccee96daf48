"""Counts by hand against paper and pencil, and against the compiler's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from tests.generate.tiny_release import FACE, MOTION, tiny_head
from vasa_jax.bench.traffic import count_by_hand

pytestmark = pytest.mark.usefixtures("broadcasting")


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def compiled_cost(function, *arguments):
    cost = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return cost[0] if isinstance(cost, list) else cost


def test_a_product_reads_its_operands_and_writes_its_result():
    count = count_by_hand(lambda a, b: a @ b, array(3, 4), array(4, 5))
    assert count.flops == 2 * 3 * 4 * 5
    assert count.bytes == 4 * (12 + 20 + 15)


def test_what_lies_between_two_products_is_written_once():
    def two(a, b, c):
        return jnp.maximum(a @ b + 1.0, 0.0) @ c

    count = count_by_hand(two, array(8, 8), array(8, 8), array(8, 8))
    assert count.flops == 2 * (2 * 8**3) + 2 * 64
    # Two products of three arrays each, and one pass from the first's result to the second's input.
    assert count.bytes == 4 * 64 * (3 + 2 + 3)


def test_a_loop_counts_as_often_as_it_runs():
    def rounds(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

    once = count_by_hand(lambda x, w: x @ w, array(4, 4), array(4, 4))
    many = count_by_hand(rounds, array(4, 4), array(4, 4))
    assert many.flops == 7 * once.flops and many.bytes >= 7 * once.bytes


@pytest.mark.parametrize("first", [True, False])
def test_a_conditional_counts_as_its_dearest_branch(first):
    def either(x, w):
        branches = (lambda x: (x @ w) @ w, lambda x: x + 1.0)
        return jax.lax.cond(x.sum() > 0, *(branches if first else branches[::-1]), x)

    count = count_by_hand(either, array(8, 8), array(8, 8))
    assert count.flops == 2 * (2 * 8**3) + 64 + 1 + 1  # the sum, the comparison, and as an index


def test_a_plain_net_agrees_with_the_compiler():
    def net(x, kernels, out):
        for kernel in kernels:
            x = jax.nn.relu(
                jax.lax.conv_general_dilated(
                    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
        return x.reshape(x.shape[0], -1) @ out

    arguments = (array(1, 16, 16, 8), [array(3, 3, 8, 8)] * 3, array(2048, 10))
    count, cost = count_by_hand(net, *arguments), compiled_cost(net, *arguments)
    # The compiler does not count taps that fall outside of the picture: here a twelfth.
    assert count.flops == pytest.approx(cost["flops"], rel=0.1)
    assert count.bytes == pytest.approx(cost["bytes accessed"], rel=0.1)


def test_operations_of_the_motion_model_agree_with_the_compiler():
    from types import SimpleNamespace

    from vasa_jax.bench.models import MODELS

    cfg = SimpleNamespace(model=MOTION, data=SimpleNamespace(batch=1))
    entry = MODELS["MotionModelConfig"]
    for call in entry.calls(cfg, entry.parameters(MOTION)):
        if not call.training:
            count = count_by_hand(call.function, *call.arguments)
            cost = compiled_cost(call.function, *call.arguments)
            assert count.flops == pytest.approx(cost["flops"], rel=0.1), call.name


def test_operations_of_the_face_agree_with_the_compiler():
    from vasa_jax.core.arkit import MOTION_DIM
    from vasa_jax.face.warp.autoencoder import FaceAutoencoder

    auto = FaceAutoencoder(FACE, tiny_head())
    params = jax.eval_shape(auto.init, jax.random.key(0))
    head = jax.eval_shape(lambda: auto.head)
    n = FACE.size
    portrait = (params, head, array(n, n, 3), array(3), array(MOTION_DIM), array(3))
    appearance = jax.eval_shape(auto.encode, *portrait)

    def render(params, head, appearance, motion):
        return auto.render(params, head, appearance, motion).image

    frame = (params, head, appearance, array(1, MOTION_DIM))
    for function, arguments in ((auto.encode, portrait), (render, frame)):
        count = count_by_hand(function, *arguments)
        # As traced: at this size the geometry is most of it, and fusing repeats cheap arithmetic.
        cost = jax.jit(function).lower(*arguments).cost_analysis()
        assert count.flops == pytest.approx(cost["flops"], rel=0.1)
