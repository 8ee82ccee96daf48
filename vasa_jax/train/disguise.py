"""What is done to a driving frame before ``E_dyn`` sees it, so that it cannot tell who it is.

MegaPortraits B.1: a random smooth warp that destroys the shape of the face and keeps what it does,
then a strong change of colours. Without it identity leaks through the dynamics code (their
ablation). Numbers from the author's code (paper facts 2.6).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vasa_jax.nn.warp import image_grid, sample_image


@dataclasses.dataclass(frozen=True, kw_only=True)
class DisguiseConfig:
    """Strengths; zero switches a part off."""

    cells: int = 8  # of the warp's grid, per side
    warp: float = 0.1  # deviation of the grid's inner points, in cells
    brightness: float = 0.4  # largest relative change
    contrast: float = 0.4
    saturation: float = 0.4
    tint: float = 0.2  # largest relative change of one colour channel
    grey: float = 0.05  # share without colour


def disguise(cfg: DisguiseConfig, face_BYXC: jax.Array, key: jax.Array) -> jax.Array:
    """Faces (B, Y, X, 3) in [-1, 1], each with its own warp and colours; same shape and range."""
    b, y, x, _ = face_BYXC.shape
    keys = jax.random.split(key, 6)
    n = cfg.cells + 1
    offset = jax.random.normal(keys[0], (b, n, n, 2)) * (cfg.warp * 2.0 / cfg.cells)
    inner = jnp.zeros((1, n, n, 1)).at[:, 1:-1, 1:-1].set(1.0)
    smooth = jax.image.resize(offset * inner, (b, y, x, 2), "cubic")
    points = image_grid(y, x)[None] + smooth
    face = (jax.vmap(sample_image)(face_BYXC, points) + 1.0) * 0.5

    def factor(key: jax.Array, strength: float, channels: int = 1) -> jax.Array:
        shape = (b, 1, 1, channels)
        return jax.random.uniform(key, shape, minval=1.0 - strength, maxval=1.0 + strength)

    face = face * factor(keys[1], cfg.brightness) * factor(keys[2], cfg.tint, 3)
    mean = face.mean((1, 2, 3), keepdims=True)
    face = mean + (face - mean) * factor(keys[3], cfg.contrast)
    luma = jnp.array([0.299, 0.587, 0.114]).reshape(1, 1, 1, 3)
    grey = (face * luma).sum(-1, keepdims=True)
    colourless = jax.random.uniform(keys[5], (b, 1, 1, 1)) < cfg.grey
    keep = jnp.where(colourless, 0.0, factor(keys[4], cfg.saturation))
    face = grey + (face - grey) * keep
    return jnp.clip(face, 0.0, 1.0) * 2.0 - 1.0
