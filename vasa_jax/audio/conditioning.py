"""What the nets hear of a recording: no offset, hum or rumble, and speech at a usual level.

Both parts are causal and start from a state, so that a stream and a file give the same.

*High-pass.* Eighth-order Butterworth as its own first 64 ms: a finite filter depends on nothing
older, and its gain for a constant is exactly zero. Before its first sample a recording is taken to
have stood still at it, so that an offset is no thump.

*Gain.* Loud recordings are the features' own affair (they divide by the level); what is quiet would
drown in the floor that keeps silence silent. So the level of what is *active* is followed:
frames that rise above the background, which itself is followed from below. Steady noise is never
active, however long it lasts, so pauses are not pumped up. Speech down to ``usual_db`` is left
alone to the bit.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vasa_jax.core.types import SAMPLE_RATE_HZ, Array

TAPS = 1024
ORDER = 8
BLOCK = 160  # samples filtered by one row of the matrix

SILENCE_DB = -100.0  # stands for no power at all
ACTIVE_DB = 10.0  # above the background
FAINT_DB = -90.0  # the last bits of 16: below, nothing is active and there is no background
RISE_DB = 0.12  # of the background per frame, 3 dB a second
FALL = 0.5  # share of its way down that the background covers in a frame
FIRST_DB, FIRST_FRAMES = -30.0, 5  # what is believed of the level before anything was heard
MEMORY_FRAMES = 50  # of active frames
LOUDER = 0.3  # share of its way up that the level covers in a frame


@struct.dataclass
class HeardLevel:
    """The background and the level of what is active, per stream, in dB re full scale."""

    background: Array  # (B,)
    level: Array  # (B,)
    count: Array  # (B,) active frames it is the mean of


def init_level(batch: int) -> HeardLevel:
    """Before anything was heard."""
    return HeardLevel(
        background=np.zeros(batch, np.float32),
        level=np.full(batch, FIRST_DB, np.float32),
        count=np.full(batch, FIRST_FRAMES, np.float32),
    )


def highpass(heard_BS: jax.Array, hertz: float) -> jax.Array:
    """``heard_BS`` (B, TAPS - 1 + S) without what is below ``hertz``: the last S samples."""
    length = heard_BS.shape[1] - (TAPS - 1)
    rows = -(-length // BLOCK)
    padded = jnp.pad(heard_BS, ((0, 0), (0, rows * BLOCK - length)))
    index = np.arange(rows)[:, None] * BLOCK + np.arange(BLOCK + TAPS - 1)[None]
    out = jnp.matmul(padded[:, index], _filter_matrix(hertz), precision=jax.lax.Precision.HIGHEST)
    return out.reshape(heard_BS.shape[0], rows * BLOCK)[:, :length]


def follow(state: HeardLevel, power_BT: jax.Array) -> tuple[HeardLevel, jax.Array]:
    """Level of what is active (B, T) in dB, after each frame of mean square ``power_BT``."""
    power_db = 10.0 * jnp.log10(power_BT + 10.0 ** (SILENCE_DB / 10.0))

    state, level_TB = jax.lax.scan(_after_frame, state, power_db.T)
    return state, level_TB.T


def _after_frame(state: HeardLevel, now: jax.Array) -> tuple[HeardLevel, jax.Array]:
    """The state after one more frame of ``now`` (B,) dB, and its level."""
    below = now < state.background
    risen = jnp.minimum(state.background + RISE_DB, now)
    fallen = state.background + FALL * (now - state.background)
    heard = now > FAINT_DB
    background = jnp.where(heard, jnp.where(below, fallen, risen), state.background)
    active = heard & (now > background + ACTIVE_DB)
    count = jnp.where(active, jnp.minimum(state.count + 1.0, MEMORY_FRAMES), state.count)
    step = now - state.level
    share = jnp.where(step > 0.0, jnp.maximum(LOUDER, 1.0 / count), 1.0 / count)
    level = jnp.where(active, state.level + share * step, state.level)
    return HeardLevel(background=background, level=level, count=count), level


@functools.lru_cache(maxsize=4)
def response(hertz: float) -> np.ndarray:
    """The high-pass as a finite response (TAPS,), float64; its sum is zero."""
    taps = np.zeros(TAPS)
    taps[0] = 1.0
    omega = 2.0 * np.pi * hertz / SAMPLE_RATE_HZ
    cosine = np.cos(omega)
    for pair in range(ORDER // 2):
        # Half the sine over the quality of each pair of poles; the bilinear transform of both.
        alpha = np.sin(omega) * np.sin((2 * pair + 1) * np.pi / (2 * ORDER))
        b = np.array([0.5, -1.0, 0.5]) * (1.0 + cosine) / (1.0 + alpha)
        a1, a2 = -2.0 * cosine / (1.0 + alpha), (1.0 - alpha) / (1.0 + alpha)
        fed = np.convolve(taps, b)[:TAPS]
        taps = np.zeros(TAPS)
        for i in range(TAPS):
            taps[i] = fed[i] - a1 * taps[i - 1] * (i > 0) - a2 * taps[i - 2] * (i > 1)
    return taps - taps.sum() / TAPS


@functools.lru_cache(maxsize=4)
def _filter_matrix(hertz: float) -> np.ndarray:
    """(BLOCK + TAPS - 1, BLOCK): a block and what comes before it to the filtered block."""
    taps = response(hertz)
    matrix = np.zeros((BLOCK + TAPS - 1, BLOCK))
    for i in range(BLOCK):
        matrix[i : i + TAPS, i] = taps[::-1]
    return matrix.astype(np.float32)
