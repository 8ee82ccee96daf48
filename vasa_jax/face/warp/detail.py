"""What a portrait shows finer than the model's square, moved with the face.

The nets work at 256 px. Where they leave a pixel to the portrait that the head's flow moves, the
same flow can move what the portrait has beyond that: pores, hair, lashes, brush strokes. So the
picture is made once more, twice as large, from the model's own picture enlarged and that detail.
What the nets paint (a cheek that comes in sight) has none; the inside of the mouth is painted anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.types import Array
from vasa_jax.face.head.head import Pose
from vasa_jax.face.warp import mouth as mouths
from vasa_jax.face.warp.mouth import Mouth, Opening
from vasa_jax.nn.resample import CUBIC, LINEAR, double
from vasa_jax.nn.stored import from_memory
from vasa_jax.nn.warp import image_grid, sample_at

if TYPE_CHECKING:
    from vasa_jax.face.find.align import Crop

SCALE = 2  # of the model's square
WORTH = 1.2  # px of the portrait per px of the square below which there is no detail to speak of


class Origin(NamedTuple):
    """Where each pixel of a picture comes from, B pictures of the model's size."""

    flow_BYX2: Array  # place in the portrait, x and y in [-1, 1]
    share_BYX: Array  # how much of it the pixel is, 0..1
    opening: Opening  # of the mouth, whose inside comes from nowhere
    pose: Pose


def portrait_detail(image_u8: np.ndarray, crop: Crop, size: int) -> np.ndarray | None:
    """(2 size, 2 size, 3) float32, in units of [-1, 1]: the crop less its copy of side ``size``.

    None where the portrait shows hardly more than the square does.
    """
    from PIL import Image  # here: what renders without a file of a picture has no need of it

    from vasa_jax.face.find import align

    if crop.size < WORTH * size:
        return None
    side = SCALE * size
    whole = align.extract(image_u8, crop, side).astype(np.float32)
    small = Image.fromarray(align.extract(image_u8, crop, size))
    return (whole - np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))) / 127.5


def enlarged(image_BYX3: Array, detail_RR3: Array, mouth: Mouth, origin: Origin) -> Array:
    """Pictures (B, Y, X, 3) in [-1, 1] twice as large, with the detail of where they come from.

    The inside of the mouth is painted anew.
    """
    y_size, x_size = image_BYX3.shape[1:3]
    grid, fine = image_grid(y_size, x_size), image_grid(SCALE * y_size, SCALE * x_size)

    openings = mouths.enlarged(origin.opening)

    def one(inputs: tuple[Array, Array, Array, Opening, Pose]) -> Array:
        image, flow, share, opening, pose = inputs
        # The way, not the place, is enlarged: so that nothing moves where nothing does.
        way = double(jnp.concatenate([flow - grid, share[..., None]], -1)[None], LINEAR)[0]
        at = fine + way[..., :2]
        moved = from_memory(sample_at, detail_RR3, at[..., 0], at[..., 1])
        whole = double(image[None], CUBIC)[0] + way[..., 2:] * moved
        return mouths.paint(whole, mouth, opening, pose)

    given = image_BYX3, origin.flow_BYX2, origin.share_BYX, openings, origin.pose
    return jax.lax.map(one, given)
