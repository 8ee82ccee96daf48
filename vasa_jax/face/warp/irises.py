"""Whether a portrait's eyes have irises at all: statues and some drawings have none."""

from __future__ import annotations

import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.warp.geometry import Maps

# How much darker an iris is than the white around it, of the latter: where eyes begin to count as
# painted and where they surely are. In photographs and paintings they are far darker; the middle of
# a blank eye is rather lighter, since it stands out into the light.
CONTRAST = (0.02, 0.10)
FEWEST_PX = 12  # of 256 x 256, of iris and of white; of eyes that show less nothing is known
LUMA = (0.299, 0.587, 0.114)


def irises(image_YXC: Array, maps: Maps) -> Array:
    """1 if irises are seen in a portrait (Y, X, 3) in [-1, 1], 0 if its open eyes are blank: ().

    ``maps`` are those of its own pose. Shut eyes count as eyes with irises.
    """
    light = 0.5 * (image_YXC @ jnp.array(LUMA) + 1.0)
    inside = (maps.iris > 0.5).astype(jnp.float32)
    white = maps.eyeball * (maps.iris < 0.1)
    contrast = 1.0 - _mean(light, inside) / jnp.maximum(_mean(light, white), 1e-2)
    low, high = CONTRAST
    seen = jnp.clip((contrast - low) / (high - low), 0.0, 1.0)
    fewest = FEWEST_PX * (len(image_YXC) / 256) ** 2
    return jnp.where(jnp.minimum(inside.sum(), white.sum()) < fewest, 1.0, seen)


def _mean(map_YX: Array, where_YX: Array) -> Array:
    return (map_YX * where_YX).sum() / jnp.maximum(where_YX.sum(), 1e-6)
