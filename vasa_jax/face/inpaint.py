"""The portrait's layers seen from the driver's pose, and paint where the portrait shows nothing.

Two kinds of skin are not in a photograph: that under open eyes and mouth (``skin_layer``, once per
portrait) and that on the far side of a face that turns (``warp_layers``, every frame). Both are
painted from the skin around them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.geometry import MAP_NAMES, DriverGeometry, SourceGeometry
from vasa_jax.face.raster import dilate
from vasa_jax.nn.fill import coarse, push_pull, spread
from vasa_jax.nn.resample import binomial
from vasa_jax.nn.stored import from_memory
from vasa_jax.nn.warp import sample_image

_OPENING_DILATION = 2
# log2 of how much a patch is stretched, where it begins to be painted over and where it all is: at
# a grazing angle a photograph shows skin, hair and background in one pixel. Beside the outline of
# the portrait's face, which no fit meets to the pixel, that begins with the first turn.
STRETCH, STRETCH_AT_RIM = (1.0, 2.2), (0.15, 0.5)
FEW = 0.01  # of the face; so little is not painted
_MAPS = [MAP_NAMES.index(name) for name in ("face", "visible", "stretch")]


def skin_layer(image_YXC: Array, opening_YX2: Array) -> Array:
    """The portrait's skin as if eyes and mouth were shut: openings painted over from around."""
    unit = image_YXC.shape[0] // 128
    hole = dilate(opening_YX2.max(-1), _OPENING_DILATION * max(unit // 2, 1))
    return push_pull(image_YXC, hole)


def portrait_layers(image_YXC: Array, source: SourceGeometry) -> Array:
    """What of a portrait moves with the head, (Y, X, 7): picture, skin layer, rim."""
    return jnp.concatenate([image_YXC, skin_layer(image_YXC, source.opening), source.rim], -1)


def warp_layers(layers_YX7: Array, geometry: DriverGeometry) -> Array:
    """Portrait and skin layer as the driver sees them, (Y, X, 6).

    Where the portrait does not show a part of the face, or only at a grazing angle, it is painted
    with what the visible face around it looks like. Scalp and neck are left to the nets: nobody
    knows what hair looks like from the other side.
    """
    # Stored, lest XLA:CPU find the same again for each of its readers.
    moved, known, unseen = from_memory(_move, layers_YX7, geometry.flow, geometry.maps)
    face = geometry.maps[..., _MAPS[0]]

    def painted(moved: Array) -> Array:
        paint = from_memory(_paint, moved, known)
        # Edges without steps: paint reaches beyond them.
        share = binomial(unseen[None])[0]
        return moved + share * (jnp.concatenate([paint, paint], -1) - moved)

    # Most frames are turned too little to need it, and it takes time.
    return jax.lax.cond(unseen.sum() > FEW * face.sum(), painted, lambda moved: moved, moved)


def _move(layers_YX7: Array, flow_YX2: Array, maps_YXM: Array) -> tuple[Array, Array, Array]:
    """The layers (Y, X, 6) moved, and what of the face is known and what is not, (Y, X, 1)."""
    sampled = sample_image(layers_YX7, flow_YX2)
    moved, rim = sampled[..., :6], sampled[..., 6:]
    face, seen, stretch = (maps_YXM[..., k, None] for k in _MAPS)
    low, high = (a + rim * (b - a) for a, b in zip(STRETCH, STRETCH_AT_RIM, strict=True))
    known = face * seen * jnp.clip((high - stretch) / (high - low), 0.0, 1.0)
    return moved, known, face - known


def _paint(moved_YX6: Array, known_YX1: Array) -> Array:
    """Colours (Y, X, 3) for what is not known, from what is sure around it.

    Of the skin layer, which has no openings to run from.
    """
    sure = (known_YX1 > 0.99).astype(jnp.float32)
    return spread(push_pull(*coarse(moved_YX6[..., 3:], sure)))
