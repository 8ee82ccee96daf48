"""Convolution with 3x3 kernels by Winograd's minimal filtering, ``F(2x2, 3x3)`` (arXiv 1509.09308).

Four outputs by sixteen products instead of 36: pictures and kernels are brought to a basis in which
a convolution is a product of cells, that is sixteen matrix products over channels, and back. The
basis needs only sums, differences and halves; results differ from plain ones by rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Rows of B^T and A^T as (index, sign); G is written out in ``_kernel_line``.
_FROM_PICTURE = (((0, 1), (2, -1)), ((1, 1), (2, 1)), ((2, 1), (1, -1)), ((1, 1), (3, -1)))
_TO_PICTURE = (((0, 1), (1, 1), (2, 1)), ((1, 1), (2, -1), (3, -1)))


def _kernel_line(before: jax.Array, here: jax.Array, after: jax.Array) -> tuple[jax.Array, ...]:
    outer, inner = 0.5 * (before + after), 0.5 * here
    return before, outer + inner, outer - inner, after


def _kernel_basis(kernel_YXIO: jax.Array) -> list[tuple[jax.Array, ...]]:
    """G g G^T, 4 x 4 matrices (I, O). As sums: XLA:CPU is much slower with ``einsum``."""
    columns = [_kernel_line(*(kernel_YXIO[y, x] for y in range(3))) for x in range(3)]
    return [_kernel_line(*(column[y] for column in columns)) for y in range(4)]


def _combined(grid: list[list[jax.Array]], rows: tuple, columns: tuple) -> jax.Array:
    terms = [
        grid[y][x] if sy * sx > 0 else -grid[y][x] for y, sy in rows for x, sx in columns
    ]  # fmt: skip
    return sum(terms[1:], terms[0])


def fits(shape_BYXC: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Whether ``conv_winograd`` can take a convolution: even sides, a 3x3 kernel, no stride."""
    _, y, x, _ = shape_BYXC
    return kernel_shape[:2] == (3, 3) and stride == 1 and y % 2 == 0 and x % 2 == 0


def conv_winograd(x_BYXC: jax.Array, kernel_YXIO: jax.Array) -> jax.Array:
    """3x3 convolution (B, Y, X, O) around every cell of a picture of even sides, zeros outside."""
    b, height, width, c = x_BYXC.shape
    o, (rows, columns) = kernel_YXIO.shape[-1], (height // 2, width // 2)
    padded = jnp.pad(x_BYXC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tiles = [
        [padded[:, y : y + height - 1 : 2, x : x + width - 1 : 2] for x in range(4)]
        for y in range(4)
    ]
    kernels = _kernel_basis(kernel_YXIO)
    products = [
        [
            _combined(tiles, _FROM_PICTURE[y], _FROM_PICTURE[x]).reshape(-1, c) @ kernels[y][x]
            for x in range(4)
        ]
        for y in range(4)
    ]
    out = [
        [
            _combined(products, _TO_PICTURE[y], _TO_PICTURE[x]).reshape(b, rows, columns, o)
            for x in range(2)
        ]
        for y in range(2)
    ]
    sides = [jnp.stack(line, 3) for line in out]
    return jnp.stack(sides, 2).reshape(b, height, width, o)
