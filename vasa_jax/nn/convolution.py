"""Convolutions as functions, with forms and gradients of their own where a CPU needs them.

Off the CPU they are XLA's. Layers with parameters are in ``conv.py``.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vasa_jax.nn.resample import depth_to_space
from vasa_jax.nn.winograd import conv_winograd, fits
from vasa_jax.runtime.target import backend

# A map up to so large, of at least so many channels, is convolved by one matrix product on a CPU.
FEW_CELLS, MANY_CHANNELS = 64, 256
# On a CPU, with so many channels coming in and going out, Winograd's form is faster.
WINOGRAD_CHANNELS = 256


def _plain_conv(x_BYXC: jax.Array, kernel_YXIO: jax.Array, stride: int = 1) -> jax.Array:
    height, width = kernel_YXIO.shape[:2]
    return jax.lax.conv_general_dilated(
        x_BYXC, kernel_YXIO, (stride, stride), [(height // 2,) * 2, (width // 2,) * 2],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _fast_conv(x_BYXC: jax.Array, kernel_YXIO: jax.Array, stride: int = 1) -> jax.Array:
    """Of many channels in Winograd's form; of fewer, its sums cost more than it saves."""
    wide = min(kernel_YXIO.shape[2:]) >= WINOGRAD_CHANNELS and x_BYXC.dtype == jnp.float32
    if wide and fits(x_BYXC.shape, kernel_YXIO.shape, stride):
        return conv_winograd(x_BYXC, kernel_YXIO)
    return _plain_conv(x_BYXC, kernel_YXIO, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cpu_conv(x_BYXC: jax.Array, kernel_YXIO: jax.Array, stride: int = 1) -> jax.Array:
    return _fast_conv(x_BYXC, kernel_YXIO, stride)


def _cpu_conv_forward(x, kernel, stride):
    return _fast_conv(x, kernel, stride), (x, kernel)


def _rows_per_block(height: int, width: int) -> int:
    """Rows of a block of about 2000 cells, whose columns stay in the cache; divides ``height``."""
    rows = max(1, min(height, 2048 // width))
    while height % rows:
        rows -= 1
    return rows


def _columns(
    x_BYXC: jax.Array, size: tuple[int, int], shape: tuple[int, int], stride: int = 1
) -> jax.Array:
    """What each cell's kernel sees, (B Y X, size C) of a padded picture; Y X = ``shape``."""
    (height, width), (rows, cells) = size, ((n - 1) * stride + 1 for n in shape)
    taps = [
        x_BYXC[:, i : i + rows : stride, j : j + cells : stride]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(taps, -1).reshape(-1, height * width * x_BYXC.shape[-1])


def _padded(x_BYXC: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jnp.pad(x_BYXC, ((0, 0), (size[0] // 2,) * 2, (size[1] // 2,) * 2, (0, 0)))


def _kernel_gradient(
    x_BYXC: jax.Array, g_BYXO: jax.Array, size: tuple[int, int], stride: int = 1
) -> jax.Array:
    """Gradient (size, C, O) of a convolution's kernel in float32, as matrix products.

    Columns (cells x taps C) times the gradient's (cells x O), block of rows after block of rows: in
    one piece, the columns are nine times the picture and go through the memory. With very few
    outputs, the columns are the gradient's instead: smaller than the picture.
    """
    b, y, x, o = g_BYXO.shape
    c = x_BYXC.shape[-1]
    height, width = size
    dot = functools.partial(
        jax.lax.dot_general, dimension_numbers=(((0,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    if stride == 1 and o * height * width <= c:
        product = dot(x_BYXC.reshape(-1, c), _columns(_padded(g_BYXO, size), size, (y, x)))
        # What a cell gives to its right neighbour's gradient comes from that one's left tap.
        return product.reshape(c, height, width, o)[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    padded, rows = _padded(x_BYXC, size), _rows_per_block(y, x)
    blocks = y // rows
    seen = (1, (rows - 1) * stride + height, (x - 1) * stride + width, c)

    def block(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        row = k % blocks * rows
        part = jax.lax.dynamic_slice(padded, (k // blocks, row * stride, 0, 0), seen)
        g = jax.lax.dynamic_slice(g_BYXO, (k // blocks, row, 0, 0), (1, rows, x, o)).reshape(-1, o)
        return total + dot(_columns(part, size, (rows, x), stride), g), None

    zero = jnp.zeros((height * width * c, o), jnp.float32)
    total, _ = jax.lax.scan(block, zero, jnp.arange(b * blocks))
    return total.reshape(height, width, c, o)


def _turned(kernel: jax.Array) -> jax.Array:
    """The kernel that brings a gradient back to the input: taps reversed, (*taps, O, C)."""
    taps = tuple(range(kernel.ndim - 2))
    return jnp.flip(jnp.swapaxes(kernel, -1, -2), taps)


def _input_gradient(
    g_BYXO: jax.Array, kernel_YXIO: jax.Array, size: tuple[int, int], stride: int
) -> jax.Array:
    """Gradient (B, *size, C) of a convolution's input.

    JAX's own rule transposes by naming the kernel's axes anew, which XLA:CPU undoes in the main
    program only: in a loop or branch it would run as a plain loop over numbers.
    """
    if stride == 1 and kernel_YXIO.shape[:2] == (3, 3):
        return _fast_conv(g_BYXO, _turned(kernel_YXIO))
    padding = []
    for taps, n, out in zip(kernel_YXIO.shape[:2], size, g_BYXO.shape[1:3], strict=True):
        rest = n - 1 - (out - 1) * stride  # cells after the last one that a kernel was around
        padding.append((taps - 1 - taps // 2, taps // 2 + rest))
    return jax.lax.conv_general_dilated(
        g_BYXO, _turned(kernel_YXIO), (1, 1), padding, lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _cpu_conv_backward(stride, residual, g_BYXO):
    x_BYXC, kernel = residual
    dx = _input_gradient(g_BYXO, kernel, x_BYXC.shape[1:3], stride)
    dk = _kernel_gradient(x_BYXC, g_BYXO, kernel.shape[:2], stride)
    return dx, dk.astype(kernel.dtype)


_cpu_conv.defvjp(_cpu_conv_forward, _cpu_conv_backward)


def _conv_few_cells(x_BYXC: jax.Array, kernel_YXIO: jax.Array, stride: int = 1) -> jax.Array:
    """As one matrix product of columns."""
    b, y, x, _ = x_BYXC.shape
    y, x = -(-y // stride), -(-x // stride)
    height, width, _, o = kernel_YXIO.shape
    columns = _columns(_padded(x_BYXC, (height, width)), (height, width), (y, x), stride)
    return (columns @ kernel_YXIO.reshape(-1, o)).reshape(b, y, x, o)


def conv_same(x_BYXC: jax.Array, kernel_YXIO: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution with an odd kernel around every cell, or every ``stride``-th from the first.

    On a CPU its kernel's gradient is a sum of matrix products: XLA:CPU's own one takes a slow path
    for few channels (6 to 9 times slower at 128 px and more, measured at 24 to 48 channels; with
    strides about twice as slow, at 64 to 256). And maps of few cells and many channels are one
    product: XLA:CPU lays the kernel out anew at every call, which there costs more (512 channels,
    2 x 2 cells: 16 times).
    """
    if backend() != "cpu":
        return _plain_conv(x_BYXC, kernel_YXIO, stride)
    _, y, x, channels = x_BYXC.shape
    few_cells = y * x <= FEW_CELLS and channels >= MANY_CHANNELS
    if few_cells or kernel_YXIO.shape[:2] == (1, 1):
        return _conv_few_cells(x_BYXC, kernel_YXIO, stride)
    return _cpu_conv(x_BYXC, kernel_YXIO, stride)


def _to_both_sides(kernel: jax.Array, axis: int) -> jax.Array:
    """A kernel of 3 on cells that are each there twice, as one of 2 on the cells: (2, 2, ...).

    First the taps, then the side of a cell, the second one first; ``axis`` is gone.
    """
    before, here, after = (jax.lax.index_in_dim(kernel, k, axis, keepdims=False) for k in range(3))
    # The first half of a cell sees the cell before and twice its own, the second its own twice.
    return jnp.stack([jnp.stack([before + here, before]), jnp.stack([after, here + after])])


def conv_upsampled(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    """``conv_same(upsample_nearest(x), kernel)`` with a 3x3 kernel: (B, 2Y, 2X, O).

    At 4/9 of the products: a half of an upsampled cell sees two different cells per axis, not
    three. So this is a convolution with 2x2 cells and four times the channels, which are then
    spread over the halves (a *sub-pixel convolution*, arXiv 1609.05158).
    """
    *_, channels, features = kernel_YXIO.shape
    taps = _to_both_sides(_to_both_sides(kernel_YXIO, 0), 2)  # x tap, x side, y tap, y side, I, O
    kernel = taps.transpose(2, 0, 4, 3, 1, 5).reshape(2, 2, channels, 4 * features)
    # Between each two cells, and outside the outermost: of these, the outer halves are cut off.
    conv = _plain_conv if backend() != "cpu" else _cpu_conv
    return depth_to_space(conv(x_BYXC, kernel, 1), 2)[:, 1:-1, 1:-1]


def _plain_conv3d(x_BZYXC: jax.Array, kernel_ZYXIO: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x_BZYXC, kernel_ZYXIO, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _planes(x_BZYXC: jax.Array, tap: jax.Array) -> jax.Array:
    """(B Z, Y, X, C): what tap 0, 1, 2 of a kernel 3 deep sees of a volume padded in depth."""
    b, z, *plane = x_BZYXC.shape
    return jax.lax.dynamic_slice_in_dim(x_BZYXC, tap, z - 2, 1).reshape(b * (z - 2), *plane)


def _depth_padded(x_BZYXC: jax.Array) -> jax.Array:
    return jnp.pad(x_BZYXC, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))


def _tap_by_tap(x_BZYXC: jax.Array, kernel_ZYXIO: jax.Array, *, loop: bool) -> jax.Array:
    """A sum over three 2D convolutions; in a loop, its parts are never kept at the same time."""
    (b, z, y, x, _), o = x_BZYXC.shape, kernel_ZYXIO.shape[-1]
    padded = _depth_padded(x_BZYXC)

    # The many sums of Winograd's form gain nothing in a loop, where one core computes each.
    conv = _plain_conv if loop else _fast_conv

    def add_tap(total: jax.Array, tap: jax.Array) -> tuple[jax.Array, None]:
        return total + conv(_planes(padded, tap), kernel_ZYXIO[tap]), None

    zero = jnp.zeros((b * z, y, x, o), x_BZYXC.dtype)
    total, _ = jax.lax.scan(add_tap, zero, jnp.arange(3), unroll=not loop)
    return total.reshape(b, z, y, x, o)


@jax.custom_vjp
def _cpu_conv3d(x_BZYXC: jax.Array, kernel_ZYXIO: jax.Array) -> jax.Array:
    # No loop: the compiler's count of operations takes loops for a single round.
    return _tap_by_tap(x_BZYXC, kernel_ZYXIO, loop=False)


def _cpu_conv3d_forward(x, kernel):
    return _tap_by_tap(x, kernel, loop=True), (x, kernel)


def _cpu_conv3d_backward(residual, g_BZYXO):
    x_BZYXC, kernel = residual
    dx = _tap_by_tap(g_BZYXO, _turned(kernel), loop=True)
    padded, g = _depth_padded(x_BZYXC), g_BZYXO.reshape(-1, *g_BZYXO.shape[2:])
    dk = jax.lax.map(
        lambda tap: _kernel_gradient(_planes(padded, tap), g, kernel.shape[1:3]), jnp.arange(3)
    )
    return dx, dk.astype(kernel.dtype)


_cpu_conv3d.defvjp(_cpu_conv3d_forward, _cpu_conv3d_backward)


def conv3d_same(x_BZYXC: jax.Array, kernel_ZYXIO: jax.Array) -> jax.Array:
    """3x3x3 convolution around every cell.

    On a CPU a loop of 2D ones over depth taps, with a gradient of its own: XLA:CPU's takes 1.5 to 5
    times longer, 10 to 30 with few channels (96 and 192; 64 and 32; 32 and 3, measured).
    """
    on_cpu = backend() == "cpu"
    return (_cpu_conv3d if on_cpu else _plain_conv3d)(x_BZYXC, kernel_ZYXIO)
