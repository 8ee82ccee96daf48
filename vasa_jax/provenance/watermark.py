"""The invisible mark: a spread-spectrum pattern added to the luminance of every frame.

    marker = Marker(Payload.of(release.sha256), height, width)
    marked = marker(frame)                    # uint8 (Y, X, 3), a fraction of a millisecond

The pattern (``pattern.py``) belongs to the picture's frame and not to the face in it; it is the
same for all frames of a video, so that coding keeps it where the picture rests and a detector
(``detector.py``) may average. The same amount is added to red, green and blue. Its strength follows
the deviation of the luminance in each chip of the lattice (in large pictures in each 2 x 2, a
quarter of the work): more where there is texture to hide it. On flat ground it falls with the
picture's size, since large pictures have chips to spare. ``MAX_STRENGTH`` bounds it such that no
frame falls below 42 dB of PSNR, whatever it shows: the pattern's mean square is (2/3)^2, hence the
error's at most (2/3 * 2.95)^2 + 1/12 (rounding) = 3.95 grey levels squared, 42.2 dB.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.provenance.pattern import PUBLIC_KEY, pattern, pitch_of
from vasa_jax.provenance.payload import Payload
from vasa_jax.runtime.programs import Program

FLAT_STRENGTH = (0.8, 1.4)  # grey levels at a chip's centre, on flat ground: large, small pictures
MAX_STRENGTH = 2.95
LARGE_PIXELS = 600 * 600  # above, strength is decided for 2 x 2 chips together
KEPT_PROGRAMS = 64  # one per size; a server that sees portraits of all sizes must not grow
PER_DEVIATION = 0.3  # more strength per grey level of mean deviation within the chip


@functools.partial(Program, static=("cell",))
def embed(
    frame_YX3: jax.Array,
    pattern_YX: jax.Array,
    spread_CX: jax.Array,
    flat: jax.Array,
    *,
    cell: int,
) -> jax.Array:
    """The marked frame, uint8 (Y, X, 3); pure, one program per size.

    Args:
        pattern_YX: of ``pattern.pattern``, float32, with zeros below up to whole cells.
        spread_CX: 1 where a column of pixels lies in a column of cells, float32; a product with it
            repeats values per chip, several times faster on a CPU than indexing does.
        flat: strength on flat ground, grey levels.
        cell: side in px of the cells that have one strength each.
    """
    height, width = frame_YX3.shape[:2]
    rows, columns = pattern_YX.shape[0] // cell, spread_CX.shape[0]
    # Barriers keep XLA from computing the small arrays anew for each pixel.
    deviation_RC = _deviation(frame_YX3, rows, columns, cell)
    strength_RC = jax.lax.optimization_barrier(
        jnp.minimum(flat + PER_DEVIATION * deviation_RC, MAX_STRENGTH)
    )
    strength_RX = jax.lax.optimization_barrier(strength_RC @ spread_CX)
    added = pattern_YX.reshape(rows, cell, width) * strength_RX[:, None, :]
    added_YX = jax.lax.optimization_barrier(jnp.round(added).astype(jnp.int16))
    added_YX = added_YX.reshape(rows * cell, width)[:height]
    marked = frame_YX3.astype(jnp.int16) + added_YX[:, :, None]
    return jnp.clip(marked, 0, 255).astype(jnp.uint8)


def _deviation(frame_YX3: jax.Array, rows: int, columns: int, side: int) -> jax.Array:
    """(rows, columns) mean deviation of five samples of green in each cell, grey levels."""
    last = side - 1
    samples = []
    for y, x in ((0, 0), (0, last), (last, 0), (last, last), (side // 2, side // 2)):
        cell = frame_YX3[y::side, x::side, 1].astype(jnp.float32)
        missing = (0, rows - cell.shape[0]), (0, columns - cell.shape[1])
        samples.append(jnp.pad(cell, missing, mode="edge"))
    mean = sum(samples, jnp.zeros_like(samples[0])) / 5.0
    return sum((jnp.abs(sample - mean) for sample in samples), jnp.zeros_like(mean)) / 5.0


def flat_strength(height: int, width: int) -> float:
    """Grey levels on flat ground for a picture of that size: 1.4 at 256 px, 0.8 from 650 px on."""
    least, most = FLAT_STRENGTH
    return float(np.clip(most * (256.0 / min(height, width)) ** 0.6, least, most))


class Marker:
    """Marks frames of one size with one payload; ready, that is compiled, when made."""

    def __init__(self, payload: Payload, height: int, width: int, *, key: bytes = PUBLIC_KEY):
        self.payload, self.size = payload, (height, width)
        pitch = pitch_of(height, width)
        self._cell = pitch if height * width <= LARGE_PIXELS else 2 * pitch
        spread = np.repeat(np.eye(-(-width // self._cell), dtype=np.float32), self._cell, axis=1)
        values = np.pad(pattern(payload, height, width, key), ((0, -height % self._cell), (0, 0)))
        # Frames are on the host by now; an accelerator would have to be sent each and send it back.
        flat = np.float32(flat_strength(height, width))
        self._arrays = jax.device_put((values, spread[:, :width], flat), _host())
        if embed.count >= KEPT_PROGRAMS:
            embed.clear()
        self(np.zeros((height, width, 3), np.uint8))

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """A marked copy of a frame uint8 (Y, X, 3). Raises ValueError for another size."""
        if frame.shape[:2] != self.size:
            raise ValueError(f"a marker for {self.size} got a frame of {frame.shape[:2]}")
        return np.asarray(embed(frame, *self._arrays, cell=self._cell))


def _host() -> jax.Device | None:
    """The first CPU; None where JAX was told to know of none."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None
