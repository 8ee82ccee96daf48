"""Changing the resolution of maps (B, *spatial, C) without weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp


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


def mean_pool(x: jax.Array, factors: tuple[int, ...]) -> jax.Array:
    """Means over blocks of ``factors`` cells of (B, *spatial, C); each must divide its axis."""
    shape: list[int] = [x.shape[0]]
    for n, f in zip(x.shape[1:-1], factors, strict=True):
        shape += [n // f, f]
    axes = tuple(range(2, 2 * len(factors) + 1, 2))
    return x.reshape(*shape, x.shape[-1]).mean(axes)


def binomial(image_BYXC: jax.Array) -> jax.Array:
    """3x3 binomial low-pass (1 2 1 in both directions), borders repeated: no answer at Nyquist."""
    x = jnp.pad(image_BYXC, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    x = 0.25 * (x[:, :-2] + 2.0 * x[:, 1:-1] + x[:, 2:])
    return 0.25 * (x[:, :, :-2] + 2.0 * x[:, :, 1:-1] + x[:, :, 2:])


def double(image_BYXC: jax.Array, taps: tuple[float, float, float, float]) -> jax.Array:
    """Twice the resolution in Y and X: each new cell lies a quarter of an old one from its centre.

    ``taps`` weigh the old cells at distances 1.25, 0.25, 0.75, 1.75 (``LINEAR``, ``CUBIC``);
    borders are repeated.
    """
    for axis in (1, 2):
        pad = [(0, 0)] * image_BYXC.ndim
        pad[axis] = (2, 2)
        x = jnp.pad(image_BYXC, pad, mode="edge")
        n = image_BYXC.shape[axis]
        at = [jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i in range(5)]
        before = sum(t * a for t, a in zip(taps, at[3::-1], strict=True))
        after = sum(t * a for t, a in zip(taps, at[1:], strict=True))
        both = jnp.stack([before, after], axis + 1)
        shape = list(image_BYXC.shape)
        shape[axis] = 2 * n
        image_BYXC = both.reshape(shape)
    return image_BYXC


LINEAR = (0.0, 0.75, 0.25, 0.0)
CUBIC = (-0.0703125, 0.8671875, 0.2265625, -0.0234375)  # Keys, a = -1/2, as Pillow's BICUBIC
