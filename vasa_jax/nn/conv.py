"""Convolution blocks of the face nets, channels last."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# A map up to so large, of at least so many channels, is convolved by one matrix product on a CPU.
FEW_CELLS, MANY_CHANNELS = 64, 256


def space_to_depth(x_BYXC: jax.Array, factor: int) -> jax.Array:
    """(B, Y, X, C) -> (B, Y/f, X/f, f*f*C); the inverse of ``depth_to_space``."""
    b, y, x, c = x_BYXC.shape
    x_ = x_BYXC.reshape(b, y // factor, factor, x // factor, factor, c)
    return x_.transpose(0, 1, 3, 2, 4, 5).reshape(b, y // factor, x // factor, factor * factor * c)


def depth_to_space(x_BYXC: jax.Array, factor: int) -> jax.Array:
    """(B, Y, X, f*f*C) -> (B, Y*f, X*f, C): sub-pixel upsampling."""
    b, y, x, c = x_BYXC.shape
    out = c // (factor * factor)
    x_ = x_BYXC.reshape(b, y, x, factor, factor, out).transpose(0, 1, 3, 2, 4, 5)
    return x_.reshape(b, y * factor, x * factor, out)


def upsample_nearest(x: jax.Array, factors: tuple[int, ...] | None = None) -> jax.Array:
    """Repeats the cells of (B, *spatial, C) by whole ``factors``, 2 on every axis by default.

    A broadcast, cheap in XLA.
    """
    factors = (2,) * (x.ndim - 2) if factors is None else factors
    for axis, factor in enumerate(factors, 1):
        if factor == 1:
            continue
        shape = x.shape
        x = jnp.broadcast_to(
            jnp.expand_dims(x, axis + 1), (*shape[: axis + 1], factor, *shape[axis + 1 :])
        ).reshape(*shape[:axis], shape[axis] * factor, *shape[axis + 1 :])
    return x


class GroupNorm(nn.Module):
    """Group normalisation in two stages, per channel then per group: 1.8x faster than one."""

    groups: int = 8
    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, c = x.shape[0], x.shape[-1]
        spatial = tuple(range(1, x.ndim - 1))
        groups = min(self.groups, c)
        while c % groups:
            groups -= 1
        x32 = x.astype(jnp.float32)
        mean_BC = x32.mean(spatial)
        square_BC = jnp.square(x32).mean(spatial)
        mean = mean_BC.reshape(b, groups, -1).mean(-1, keepdims=True)
        square = square_BC.reshape(b, groups, -1).mean(-1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + self.epsilon)
        shape = (b, *(1,) * len(spatial), c)
        scale_BC = jnp.broadcast_to(scale, (b, groups, c // groups)).reshape(shape)
        shift_BC = jnp.broadcast_to(-mean * scale, (b, groups, c // groups)).reshape(shape)
        if self.affine:
            g = self.param("scale", nn.initializers.ones, (c,)).reshape((1,) * (x.ndim - 1) + (c,))
            h = self.param("bias", nn.initializers.zeros, (c,)).reshape((1,) * (x.ndim - 1) + (c,))
            scale_BC, shift_BC = scale_BC * g, shift_BC * g + h
        return (x32 * scale_BC + shift_BC).astype(x.dtype)


class AdaptiveGroupNorm(nn.Module):
    """Group norm with gain and offset from a code (MegaPortraits appendix, warp generators)."""

    groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, code_BK: jax.Array) -> jax.Array:
        c = x.shape[-1]
        gain_bias = nn.Dense(2 * c, kernel_init=nn.initializers.normal(0.02), name="affine")(
            code_BK
        )
        shape = (x.shape[0], *(1,) * (x.ndim - 2), c)
        gain, bias = (g.reshape(shape) for g in jnp.split(gain_bias, 2, -1))
        return GroupNorm(self.groups, affine=False)(x) * (1 + gain) + bias


class LowRankGroupNorm(nn.Module):
    """Group norm whose gain and offset follow a code map by a low-rank product (MegaPortraits A.1).

    The code is a matrix ``E`` (D, L) per example, D channels at L places. With learned ``U``
    (C, D) and ``V`` (L, 2), ``[dgain, dbias] = U E V`` is added to the layer's own gain and bias:
    about C D numbers per layer instead of the 2 C D L of a dense map.
    """

    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, code_BLD: jax.Array) -> jax.Array:
        """x (B, *spatial, C), code (B, L, D) -> like x."""
        c, (places, width) = x.shape[-1], code_BLD.shape[1:]
        u = self.param("rows", nn.initializers.lecun_normal(), (width, c))
        v = self.param("columns", nn.initializers.normal(0.02), (places, 2))
        gain = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        # V first: two columns instead of L to be multiplied by the large U. In float32, as all
        # parameters of a normalisation.
        code = jnp.einsum("bld,lk->bkd", code_BLD.astype(jnp.float32), v)
        change_BKC = jnp.einsum("bkd,dc->bkc", code, u)
        shape = (x.shape[0], *(1,) * (x.ndim - 2), c)
        gain_BC = (gain[None] + change_BKC[:, 0]).reshape(shape)
        bias_BC = (bias[None] + change_BKC[:, 1]).reshape(shape)
        normal = GroupNorm(self.groups, affine=False, name="normal")(x)
        return (normal.astype(jnp.float32) * gain_BC + bias_BC).astype(x.dtype)


def standardise(kernel: jax.Array) -> jax.Array:
    """Weight standardisation (arXiv 1903.10520): each output's kernel to mean 0 and deviation 1.

    Over all axes but the last; no gain, as the normalisation that follows would undo it.
    """
    axes = tuple(range(kernel.ndim - 1))
    centered = kernel - kernel.mean(axes, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centered).mean(axes, keepdims=True) + 1e-12)
    return centered / (deviation + 1e-5)


class Conv3D(nn.Module):
    """3x3x3 convolution, by default as three 2D ones over depth taps: 2.5x faster on a CPU.

    ``native`` is XLA's own: the full model's, which is for GPUs; a third of the results to keep for
    the backward pass, and a program that compiles several times faster.
    """

    features: int
    kernel_init: Any = nn.initializers.lecun_normal()
    standardised: bool = False
    native: bool = False

    @nn.compact
    def __call__(self, x_BZYXC: jax.Array) -> jax.Array:
        b, z, y, x, c = x_BZYXC.shape
        kernel = self.param("kernel", self.kernel_init, (3, 3, 3, c, self.features))
        kernel = (standardise(kernel) if self.standardised else kernel).astype(x_BZYXC.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.native:
            out = jax.lax.conv_general_dilated(
                x_BZYXC, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
            )
            return out + bias.astype(out.dtype).reshape(1, 1, 1, 1, -1)
        padded = jnp.pad(x_BZYXC, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        out = bias.astype(x_BZYXC.dtype)[None, None, None]
        for tap in range(3):
            plane = padded[:, tap : tap + z].reshape(b * z, y, x, c)
            out = out + conv_same(plane, kernel[tap])
        return out.reshape(b, z, y, x, self.features)


def _plain_conv(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x_BYXC, kernel_YXIO, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def _cpu_conv(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    return _plain_conv(x_BYXC, kernel_YXIO)


def _cpu_conv_forward(x, kernel):
    return _plain_conv(x, kernel), (x, kernel)


def _rows_per_block(height: int, width: int) -> int:
    """Rows of a block of about 2000 cells, whose columns stay in the cache; divides ``height``."""
    rows = max(1, min(height, 2048 // width))
    while height % rows:
        rows -= 1
    return rows


def _columns(x_BYXC: jax.Array, size: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    """What each cell's kernel sees, (B Y X, size C) of a padded picture; Y X = ``shape``."""
    (height, width), (y, x) = size, shape
    taps = [x_BYXC[:, i : i + y, j : j + x] for i in range(height) for j in range(width)]
    return jnp.concatenate(taps, -1).reshape(-1, height * width * x_BYXC.shape[-1])


def _padded(x_BYXC: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jnp.pad(x_BYXC, ((0, 0), (size[0] // 2,) * 2, (size[1] // 2,) * 2, (0, 0)))


def _kernel_gradient(x_BYXC: jax.Array, g_BYXO: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Gradient (size, C, O) of a same-size convolution's kernel, as matrix products.

    Columns (cells x taps C) times the gradient's (cells x O), block of rows after block of rows: in
    one piece, the columns are nine times the picture and go through the memory. With very few
    outputs, the columns are the gradient's instead: smaller than the picture.
    """
    b, y, x, c = x_BYXC.shape
    o = g_BYXO.shape[-1]
    height, width = size
    dot = functools.partial(jax.lax.dot_general, dimension_numbers=(((0,), (0,)), ((), ())))
    if o * height * width <= c:
        product = dot(x_BYXC.reshape(-1, c), _columns(_padded(g_BYXO, size), size, (y, x)))
        # What a cell gives to its right neighbour's gradient comes from that one's left tap.
        return product.reshape(c, height, width, o)[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    padded, rows = _padded(x_BYXC, size), _rows_per_block(y, x)
    blocks = y // rows

    def block(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        at = (k // blocks, k % blocks * rows, 0, 0)
        part = jax.lax.dynamic_slice(padded, at, (1, rows + height - 1, x + width - 1, c))
        g = jax.lax.dynamic_slice(g_BYXO, at, (1, rows, x, o)).reshape(-1, o)
        columns = _columns(part, size, (rows, x))
        return total + dot(columns, g, preferred_element_type=jnp.float32), None

    zero = jnp.zeros((height * width * c, o), jnp.float32)
    total, _ = jax.lax.scan(block, zero, jnp.arange(b * blocks))
    return total.reshape(height, width, c, o)


def _cpu_conv_backward(residual, g):
    x, kernel = residual
    dx = _plain_conv(g, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    return dx, _kernel_gradient(x, g, kernel.shape[:2]).astype(kernel.dtype)


_cpu_conv.defvjp(_cpu_conv_forward, _cpu_conv_backward)


def _conv_few_cells(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    """As one matrix product of columns."""
    b, y, x, _ = x_BYXC.shape
    height, width, _, o = kernel_YXIO.shape
    columns = _columns(_padded(x_BYXC, (height, width)), (height, width), (y, x))
    return (columns @ kernel_YXIO.reshape(-1, o)).reshape(b, y, x, o)


def conv_same(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    """Stride-1 convolution, same size, odd kernel.

    On a CPU its kernel's gradient is a sum of matrix products: XLA:CPU's own one takes a slow path
    for few channels (6 to 9 times slower at 128 px and more, measured at 24 to 48 channels). And
    maps of few cells and many channels are one product: XLA:CPU lays the kernel out anew at every
    call, which there costs more (512 channels, 2 x 2 cells: 16 times).
    """
    if jax.default_backend() != "cpu":
        return _plain_conv(x_BYXC, kernel_YXIO)
    _, y, x, channels = x_BYXC.shape
    few_cells = y * x <= FEW_CELLS and channels >= MANY_CHANNELS
    return (_conv_few_cells if few_cells else _cpu_conv)(x_BYXC, kernel_YXIO)


class Conv(nn.Module):
    """Stride-1 convolution with bias; parameters named as in ``flax.linen.Conv``."""

    features: int
    kernel_init: Any = nn.initializers.lecun_normal()
    size: int = 3
    standardised: bool = False

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x_BYXC.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        kernel = (standardise(kernel) if self.standardised else kernel).astype(x_BYXC.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x_BYXC.dtype)
        return conv_same(x_BYXC, kernel) + bias.reshape(1, 1, 1, -1)


class ResBlock(nn.Module):
    """Pre-activation residual block: (norm, SiLU, 3x3) twice, 1x1 shortcut where widths differ."""

    features: int
    norm: bool = True

    @nn.compact
    def __call__(self, x_BYXC: jax.Array) -> jax.Array:
        h = x_BYXC
        for i in range(2):
            h = GroupNorm(name=f"norm_{i}")(h) if self.norm else h
            init = nn.initializers.zeros if i else nn.initializers.lecun_normal()
            h = Conv(self.features, kernel_init=init, name=f"conv_{i}")(nn.silu(h))
        if x_BYXC.shape[-1] != self.features:
            x_BYXC = nn.Conv(self.features, (1, 1), name="shortcut")(x_BYXC)
        return x_BYXC + h
