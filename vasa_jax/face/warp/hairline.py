"""What of a portrait's outline is hair, or whatever else covers the head.

Beside the outline of a face a photograph is not trusted (``geometry.STRETCH_AT_RIM``): fit and
picture may disagree about where the background begins, and skin is painted there from further in.
But where hair comes down over temples and ears the outline is the hair's, which reaches beyond the
head that was fitted: what is seen there is no background, and skin in its place is a bald patch.
Hair of nearly the skin's colour is not told by it; but where all that lies beside the head looks
like its scalp, there is no background near.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.raster import dilate
from vasa_jax.face.warp.geometry import FACE, SCALP, SourceGeometry, head_plane
from vasa_jax.nn.resample import binomial

# Heights on the head, cm, of the morphable head's axes (eyes lie at 3.6): where a scalp shows only
# what covers it; cheeks and nose between lips and eyes, where nothing does; and the heights over
# which an outline that looks like hair begins to be taken for it. Further down, dark hair and a
# dark background are too easily taken for each other.
SCALP_ABOVE, CHEEKS, HAIR = 8.0, (-1.0, 2.0), (-3.0, 0.0)
BESIDE_PX = 6  # of 256: so far from the outline no background may be seen
FRONTAL = 4.0  # cm to either side: cheeks beyond lie in another light
FEWEST_PX = 100  # of 256 x 256, of either; of a head that shows less nothing is known
NOISE = 0.06  # least deviation of a colour in [-1, 1]
ODDS = 2.5  # log: so much likelier hair than skin counts half
# Squared deviations (of three channels) up to which a colour is the hair's, and from which it is
# something else.
TYPICAL = (8.0, 16.0)


def hair(image_YXC: Array, source: SourceGeometry) -> Array:
    """How surely each pixel of a portrait's head shows hair (or a hat), 0..1, (Y, X).

    By its colour, in [-1, 1]: likelier among those of the scalp than among those of the cheeks,
    each a normal distribution per channel. Or typical of the scalp, as all is beside it.
    """
    size, group = len(image_YXC), source.group
    x, y = head_plane(heads.absolute_pose(source.motion, source.placement), size)
    low, high = CHEEKS
    scalp = (group == SCALP) & (y > SCALP_ABOVE)
    cheeks = (group == FACE) & (y > low) & (y < high) & (jnp.abs(x) < FRONTAL)
    of_hair, of_skin = _colours(image_YXC, scalp), _colours(image_YXC, cheeks)
    odds = 0.5 * (_unlikely(image_YXC, of_skin) - _unlikely(image_YXC, of_hair))
    typical = 1.0 - _ramp(_deviation(image_YXC, of_hair), TYPICAL)
    reach = BESIDE_PX * max(size // 256, 1)
    outside = (group < 0).astype(jnp.float32)
    beside = dilate(outside, reach) * (1.0 - dilate(outside * (1.0 - typical), reach))
    likely = jnp.maximum(jax.nn.sigmoid(odds - ODDS), beside) * typical
    likely = binomial(likely[None, ..., None])[0, ..., 0]
    known = jnp.minimum(scalp.sum(), cheeks.sum()) >= FEWEST_PX * (size / 256) ** 2
    return known * (group >= 0) * _ramp(y, HAIR) * likely


def _ramp(value: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return jnp.clip((value - low) / (high - low), 0.0, 1.0)


def _colours(image_YXC: Array, where_YX: Array) -> tuple[Array, Array]:
    """Mean and variance (3,) of the colours there."""
    weight = where_YX[..., None] / jnp.maximum(where_YX.sum(), 1)
    mean = (image_YXC * weight).sum((0, 1))
    return mean, (jnp.square(image_YXC - mean) * weight).sum((0, 1)) + NOISE**2


def _deviation(image_YXC: Array, colours: tuple[Array, Array]) -> Array:
    """Squared deviations from those colours, summed over channels."""
    mean, variance = colours
    return (jnp.square(image_YXC - mean) / variance).sum(-1)


def _unlikely(image_YXC: Array, colours: tuple[Array, Array]) -> Array:
    """Twice the negative log-likelihood, but for a constant."""
    return _deviation(image_YXC, colours) + jnp.log(colours[1]).sum()
