"""Portraits of one colour: what is painted into a grey or brown photograph is grey or brown.

In such pictures colour follows from light alone. So a portrait's colours are fitted as a function
of their light, and what is painted keeps as much of its own hue as the portrait's colours keep of
theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.warp.geometry import solve3
from vasa_jax.face.warp.irises import LUMA

# Deviation from that function, of [-1, 1], at which a portrait has one colour, and from which on it
# has all; JPEG's own of a brown photograph is between.
HUES = (0.016, 0.040)
RIDGE = 1e-3  # of the mean square, lest a head of one brightness be extrapolated


class Tone(NamedTuple):
    """Colour (in [-1, 1]) less its light, per channel, as a polynomial of light."""

    curve: Array  # (3, 3) powers 0, 1, 2 by channel
    free: Array  # () 0 where light is all there is to a colour, 1 in a picture with all colours


def tone_of(image_YXC: Array, where_YX: Array) -> Tone:
    """Of the portrait in [-1, 1], where it shows a head."""
    light = image_YXC @ jnp.array(LUMA)
    weight = where_YX / jnp.maximum(where_YX.sum(), 1.0)
    hue = image_YXC - light[..., None]
    powers = [jnp.ones_like(light), light, light * light]
    a = jnp.stack([jnp.stack([(weight * p * q).sum() for q in powers]) for p in powers])
    b = jnp.stack([(weight[..., None] * p[..., None] * hue).sum((0, 1)) for p in powers])
    curve = solve3(a + RIDGE * jnp.eye(3), b)
    left = hue - sum(p[..., None] * c for p, c in zip(powers, curve, strict=True))
    spread = jnp.sqrt((weight[..., None] * jnp.square(left)).sum() / 3.0)
    low, high = HUES
    return Tone(curve, jnp.clip((spread - low) / (high - low), 0.0, 1.0))


def toned(image: Array, tone: Tone) -> Array:
    """Colours (..., 3) in [-1, 1] with the hue that the portrait has at their light."""
    light = (image * jnp.array(LUMA)).sum(-1, keepdims=True)
    own = light + tone.curve[0] + light * (tone.curve[1] + light * tone.curve[2])
    return own + tone.free * (image - own)
