"""Convolutions with gradients of their own against XLA's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.nn import conv, convolution
from vasa_jax.nn.resample import upsample_nearest
from vasa_jax.runtime.target import traced_for


@pytest.mark.parametrize(
    ("shape", "outputs", "size", "stride"),
    [
        ((2, 8, 6, 12), 5, (3, 3), 1),
        ((1, 36, 200, 4), 3, (3, 3), 1),  # several blocks of rows
        ((2, 7, 6, 40), 3, (3, 3), 1),  # few outputs: columns of the gradient
        ((2, 7, 6, 40), 2, (5, 1), 1),
        ((2, 5, 9, 3), 4, (1, 5), 1),
        ((2, 8, 6, 12), 5, (3, 3), 2),
        ((1, 73, 400, 4), 3, (7, 7), 2),  # several blocks of rows, a last row of its own
        ((2, 10, 9, 30), 2, (3, 5), 3),
        ((2, 7, 6, 5), 8, (2, 2), 1),  # between the cells, as for upsampling
    ],
)
def test_cpu_convolution_has_the_gradients_of_the_plain_one(shape, outputs, size, stride):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, shape[-1], outputs)), jnp.float32)

    def loss(f):
        return lambda x, k: jnp.sum(jnp.sin(f(x, k, stride)))

    ours = jax.grad(loss(convolution._cpu_conv), argnums=(0, 1))(x, kernel)
    plain = jax.grad(loss(convolution._plain_conv), argnums=(0, 1))(x, kernel)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
def test_convolution_of_few_cells_equals_the_plain_one(size, stride):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 12)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(*size, 12, 5)), jnp.float32)
    for y in (8, 7):
        np.testing.assert_allclose(
            convolution._conv_few_cells(x[:, :y], kernel, stride),
            convolution._plain_conv(x[:, :y], kernel, stride),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("standardised", [False, True])
def test_convolution_of_an_upsampled_picture_equals_doing_both(standardised):
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, 5, 8, 6)), jnp.float32)
    plain = conv.Conv(4, standardised=standardised)
    params = plain.init(jax.random.key(1), x)
    params = jax.tree.map(lambda a: a + 0.1, params)  # a bias that is not 0

    def loss(f):
        return lambda params, x: jnp.sum(jnp.sin(f(params, x)))

    both = jax.value_and_grad(loss(lambda p, x: plain.apply(p, upsample_nearest(x))), (0, 1))
    layer = conv.Conv(4, standardised=standardised, upsample=True)
    at_once = jax.value_and_grad(loss(layer.apply), (0, 1))
    assert layer.apply(params, x).shape == (2, 10, 16, 4)
    for target in ("cpu", "gpu"):  # the latter's form runs here, too
        with traced_for(target):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
                at_once(params, x), both(params, x),
            )  # fmt: skip


@pytest.mark.parametrize("at_once", [False, True])
def test_conv3d_equals_the_native_one_and_so_do_its_gradients(at_once):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 6, 5, 3)), jnp.float32)
    layer = conv.Conv3D(4, at_once=at_once)
    kernel = layer.init(jax.random.key(0), x)["params"]["kernel"]

    def ours(x, kernel):
        return layer.apply({"params": {"kernel": kernel, "bias": jnp.zeros(4)}}, x)

    def native(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )

    np.testing.assert_allclose(ours(x, kernel), native(x, kernel), atol=1e-5)

    def gradients(f):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k))), argnums=(0, 1))(x, kernel)

    for a, b in zip(gradients(ours), gradients(native), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's program for a CPU")
@pytest.mark.parametrize("call", [
    convolution.conv_same,
    convolution.conv3d_same,
    lambda x, k: convolution.conv_same(x, k, 2),
], ids=["2d", "3d", "strided"])  # fmt: skip
def test_no_gradient_convolves_with_a_transposed_kernel(call):
    # XLA:CPU has fast convolutions for kernels (taps, I, O), and plain loops for all others. In the
    # main program it brings every convolution into that form, in loops and branches it does not.
    volume = call is convolution.conv3d_same
    x = jnp.ones((1, *(16,) * (2 + volume), 16))
    kernel = jnp.ones((*(3,) * (2 + volume), 16, 16))

    def twice(x, kernel):
        return jnp.sum(jnp.sin(call(jnp.sin(call(x, kernel)), kernel)))

    def looped(x, kernel):
        return jax.lax.map(lambda x: jax.grad(twice, argnums=(0, 1))(x, kernel), x)

    text = jax.jit(looped).lower(jnp.stack([x, x]), kernel).compile().as_text()
    layouts = re.findall(r" convolution\(.*dim_labels=(\S+?)[,\s]", text)
    assert len(layouts) >= 4 and all("io->" in layout for layout in layouts), layouts


def test_for_another_backend_the_plain_one_is_traced():
    x, kernel = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((3, 3, 3, 2, 2))
    with traced_for("gpu"):
        text = str(jax.make_jaxpr(lambda x, k: convolution.conv3d_same(x, k))(x, kernel))
    assert text.count("conv_general_dilated[") == 1 and "scan" not in text
    assert "scan" in str(jax.make_jaxpr(lambda x, k: convolution.conv3d_same(x, k))(x, kernel))
