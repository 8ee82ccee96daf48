"""The inside of the mouth, painted from the head's geometry in the colours of the portrait.

A portrait with its lips shut says nothing about it, and nets that have seen few mouths paint
blurred teeth in colours of their own. White is the portrait's own, that of its eyes. The rest is
light: less of it further back, in the shadow of the lips, and between two teeth.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Pose
from vasa_jax.face.warp.geometry import Maps, smooth
from vasa_jax.face.warp.irises import LUMA
from vasa_jax.face.warp.teeth import Hit, Teeth, see
from vasa_jax.face.warp.tone import Tone, toned
from vasa_jax.nn.resample import LINEAR, binomial, double
from vasa_jax.nn.stored import from_memory

WINDOW = (5, 6)  # height and width of what a mouth can take, in sixteenths of the picture
MOUTH_CM = (0.0, -3.9, 10.5)  # its middle, between shut and wide open, on the mean head
FEWEST_PX = 12  # of 256 x 256, of anything whose colour is taken
PALER = 0.5  # of the hue of skin, and of the white of the eyes, which takes on that of the lids
TEETH_AS_WHITES = (1.05, 1.0, 0.95)  # of that white, which is bluer
TEETH_AS_SKIN = 1.05  # least light of front teeth, of that of the cheeks
WHITEST = 0.90
FLESH_AS_SKIN = (0.72, 0.40, 0.42)  # tongue and gums in front light
TONGUE, THROAT = 0.68, 0.13  # light there, of that in front
TONGUE_CM = 1.2  # above the lower teeth: 1/e of what the tongue has more than the throat is left
FADE_CM = 3.0  # behind the front: 1/e of the light on teeth is left
CROWN_CM = (1.0, 0.85)  # height of upper and lower teeth
BEHIND_LIP = 0.86  # light on lower teeth, which the lower lip stands before, of that on upper ones
BETWEEN_FROM, BETWEEN = 0.78, 0.24  # from where on a tooth it gets darker, and how much
BOUNCED = 0.3  # of the light that a tooth lacks, from the flesh around it and in its colour
SHADOW = 0.42  # most of the light that lips take, and more of it where they hardly part
SLIT = 0.65


class Mouth(NamedTuple):
    """A portrait's open mouth: its teeth, and colours (3,) in [-1, 1] in front light."""

    teeth: Teeth
    white: Array
    flesh: Array


def mouth_of(image_YXC: Array, maps: Maps, teeth: Teeth, tone: Tone) -> Mouth:
    """What the portrait (Y, X, 3) in [-1, 1] says; ``maps`` are those of its own pose."""
    light = 0.5 * (image_YXC + 1.0)
    unit = (len(image_YXC) / 256) ** 2
    luma = jnp.array(LUMA)

    def brighter(where: Array) -> tuple[Array, Array]:
        """Mean colour of the brighter half there, and whether there are enough."""
        of = light @ luma
        mean = (of * where).sum() / jnp.maximum(where.sum(), 1e-6)
        bright = (where * (of >= mean - 1e-4))[..., None]
        colour = (light * bright).sum((0, 1)) / jnp.maximum(bright.sum(), 1e-6)
        return colour, where.sum() >= FEWEST_PX * unit

    skin, _ = brighter(maps.face * maps.visible)
    white, seen = brighter(maps.eyeball * (maps.iris < 0.1))
    white = jnp.where(seen, white, skin)
    white = white + PALER * (white @ luma - white)
    white = white * jnp.array(TEETH_AS_WHITES)
    least = TEETH_AS_SKIN * (skin @ luma)
    white = white * jnp.clip(least / jnp.maximum(white @ luma, 1e-2), 1.0, 2.0)
    white = white * jnp.minimum(WHITEST / jnp.maximum(white.max(), 1e-2), 1.0)
    flesh = (skin + PALER * (skin @ luma - skin)) * jnp.array(FLESH_AS_SKIN)
    return Mouth(teeth, toned(2.0 * white - 1.0, tone), toned(2.0 * flesh - 1.0, tone))


class Opening(NamedTuple):
    """Between the lips of B pictures, each in its window."""

    share: Array  # (B, V, U) 0..1 of a pixel
    light: Array  # (B, V, U) 0..1 that the lips let in
    corner: Array  # (B, 2) row and column at which the window begins


def opening_of(maps: Maps, pose: Pose) -> Opening:
    """What the driver's maps (B, Y, X) say about it, in a window around the head's mouth."""

    def one(given: tuple[Array, Pose]) -> Opening:
        inside, pose = given
        size = len(inside)
        place = heads.place(jnp.array([MOUTH_CM]), pose.rotation, pose.placement)[0]
        window = [n * size // 16 for n in WINDOW]
        corner = ((place[1::-1] + 1.0) * (size * 0.5) - 0.5 * np.array(window)).astype(jnp.int32)
        corner = jnp.clip(corner, 0, size - np.array(window))
        seen = jax.lax.dynamic_slice(inside, corner, window)
        share = binomial(seen[None, ..., None])
        near = binomial(binomial(share))[0, ..., 0]
        # Light comes from above: the upper lip's shadow is the longer one.
        above = jnp.pad(near, ((2, 0), (0, 0)))[:-2]
        light = 1.0 - SHADOW * (1.0 - _ramp(jnp.minimum(near, above), 0.15, 0.85))
        light = light * (1.0 - SLIT * (1.0 - _ramp(near, 0.05, 0.40)))
        return Opening(share[0, ..., 0], light, corner)

    return jax.lax.map(one, (maps.mouth_interior, pose))


def enlarged(opening: Opening) -> Opening:
    """The same of pictures twice as large."""
    share, light = (double(m[..., None], LINEAR)[..., 0] for m in (opening.share, opening.light))
    return Opening(share, light, 2 * opening.corner)


def paint(image_YX3: Array, mouth: Mouth, opening: Opening, pose: Pose) -> Array:
    """A picture in [-1, 1] with the inside of its mouth painted; ``opening`` without the axis B."""
    size = len(image_YX3)
    v, u = opening.share.shape
    row, column = opening.corner
    y, x = (
        (jnp.arange(n, dtype=jnp.float32) + (first + 0.5)) * (2.0 / size) - 1.0
        for n, first in ((v, row), (u, column))
    )
    # Stored, lest XLA:CPU meet the teeth anew for each colour.
    white, flesh = from_memory(
        functools.partial(_lit, pixel=2.0 / size), mouth.teeth, opening.light, x, y, pose
    )
    inside = white[..., None] * (mouth.white + 1.0) + flesh[..., None] * (mouth.flesh + 1.0) - 1.0
    before = jax.lax.dynamic_slice(image_YX3, (row, column, 0), (v, u, 3))
    after = before + opening.share[..., None] * (inside - before)
    return jax.lax.dynamic_update_slice(image_YX3, after, (row, column, 0))


def _lit(
    teeth: Teeth, light_VU: Array, x_U: Array, y_V: Array, pose: Pose, *, pixel: float
) -> tuple[Array, Array]:
    """How much light comes from what is white and from flesh, (V, U) each, of that in front."""
    upper, lower = see(teeth, pose, (x_U[None], y_V[:, None]), pixel=pixel)
    tongue = jnp.exp(jnp.minimum(lower.high, 0.0) / TONGUE_CM - jnp.square(lower.behind / FADE_CM))
    white, flesh = jnp.zeros_like(light_VU), light_VU * (THROAT + (TONGUE - THROAT) * tongue)
    for hit, crown, height in ((lower, CROWN_CM[1], BEHIND_LIP), (upper, CROWN_CM[0], 1.0)):
        gum = _ramp(hit.high - crown * (1.0 - 0.2 * hit.across**2), -0.05, 0.05)
        light = light_VU * (height * _light(hit))
        tooth, bounced = (1.0 - gum) * _between(hit), BOUNCED * light_VU * (1.0 - light)
        white = white + hit.share * (tooth * light - white)
        flesh = flesh + hit.share * (gum * light + tooth * bounced - flesh)
    return white, flesh


def _light(hit: Hit) -> Array:
    return jnp.exp(-jnp.square(hit.behind / FADE_CM)) * (0.7 + 0.3 * jnp.maximum(hit.facing, 0.0))


def _between(hit: Hit) -> Array:
    """Light on a tooth: less of it beside the next one."""
    return 1.0 - BETWEEN * _ramp(jnp.abs(hit.across), BETWEEN_FROM, 1.0)


def _ramp(value: Array, low: float, high: float) -> Array:
    return smooth((value - low) / (high - low))
