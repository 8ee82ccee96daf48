"""The portrait's layers seen from the driver's pose, and paint where the portrait shows nothing.

Two kinds of skin are not in a photograph: that under open eyes and mouth (``skin_layer``, once per
portrait) and that on the far side of a face that turns (``warp_layers``, every frame). Both are
painted from the skin around them. What comes in sight under a jaw, neck or collar or hair, is
painted from all that is around it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.head.raster import dilate
from vasa_jax.face.warp.geometry import DriverGeometry
from vasa_jax.nn.fill import coarse, push_pull, spread
from vasa_jax.nn.resample import binomial
from vasa_jax.nn.stored import from_memory
from vasa_jax.nn.warp import sample_at

_OPENING_DILATION = 2
FEW = 0.01  # of the face; so little is not painted


def skin_layer(image_YXC: Array, opening_YX2: Array) -> Array:
    """The portrait's skin as if eyes and mouth were shut: openings painted over from around."""
    unit = image_YXC.shape[0] // 128
    hole = dilate(opening_YX2.max(-1), _OPENING_DILATION * max(unit // 2, 1))
    return push_pull(image_YXC, hole)


def portrait_layers(image_YXC: Array, opening_YX2: Array) -> Array:
    """What of a portrait moves with the head, (Y, X, 6): picture and skin layer."""
    return jnp.concatenate([image_YXC, skin_layer(image_YXC, opening_YX2)], -1)


def warp_layers(layers_YX6: Array, geometry: DriverGeometry) -> Array:
    """Portrait and skin layer as the driver sees them, (Y, X, 6).

    Where the portrait does not show a part of the face, or only at a grazing angle, it is painted
    with what the visible face around it looks like; the neck and the underside of the jaw, with
    everything around. The scalp is left to the nets: nobody knows what hair looks like from the
    other side.
    """
    face, known = geometry.maps.face, geometry.known
    unknown, throat = geometry.unknown, geometry.throat
    # Stored, lest XLA:CPU find the same again for each of its readers.
    moved = from_memory(sample_at, layers_YX6, *geometry.flow)

    def painted(moved: Array) -> Array:
        # The cheek from the skin layer, which has no openings to run from; under the jaw from all
        # that is around it.
        cheek = from_memory(_paint, moved[..., 3:], (known > 0.99).astype(jnp.float32))
        around = 1.0 - dilate(jnp.maximum(unknown, throat), 1)
        under = from_memory(_paint, moved[..., :3], around)
        for paint, share in ((cheek, unknown), (under, throat)):
            # Edges without steps: paint reaches beyond them.
            share = binomial(share[None, ..., None])[0]
            moved = moved + share * (jnp.concatenate([paint, paint], -1) - moved)
        return moved

    # Most frames are turned too little to need it, and it takes time.
    little = (unknown + throat).sum() <= FEW * face.sum()
    return jax.lax.cond(little, lambda moved: moved, painted, moved)


def _paint(image_YX3: Array, sure_YX: Array) -> Array:
    """Colours (Y, X, 3) for what is not sure (1), from what is sure around it (0 or 1)."""
    return spread(push_pull(*coarse(image_YX3, sure_YX)))
