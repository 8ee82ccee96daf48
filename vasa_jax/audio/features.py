"""Log-mel features at the video's rate, the same by the frame as by the file.

Video frame i owns the samples [640 i, 640 (i + 1)). Its feature is four mel spectra, one per 10 ms
hop, each from a 25 ms window that *ends* with its hop; nothing later is touched, so the features
add no delay. From the log spectrum the log of the mean power of the last ``level_frames`` frames is
subtracted (a causal, fixed-length gain control), which makes the features blind to the recording
level. ``floor_db`` keeps silence silent: below it nothing is amplified.

Before all that the sound is conditioned (``audio/conditioning.py``): what is below ``highpass_hz``
is no speech, and where speech is quieter than ``usual_db`` the floor sinks with it, by at most
``most_gain_db``. Training, offline and live hear the same.

``step`` consumes whole frames, any number at a time, and ``features`` is ``step`` from a fresh
state: one definition for training, offline and live.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vasa_jax.audio.conditioning import TAPS, HeardLevel, follow, highpass, init_level
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Array
from vasa_jax.runtime.programs import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Log-mel features."""

    num_mels: int = 64
    hop: int = 160  # samples between spectra; must divide 640
    window: int = 400  # samples per spectrum
    fft: int = 512
    fmin_hz: float = 60.0
    fmax_hz: float = 7600.0
    level_frames: int = 75  # 3 s of memory for the level
    floor_db: float = -55.0  # level (re full scale) below which nothing is amplified
    range_db: float = 60.0  # spectra this far below the level are cut off
    highpass_hz: float = 80.0  # offset, hum and rumble are below; 0: everything is heard
    usual_db: float = -38.0  # level (re full scale) from which speech is amplified up to here
    most_gain_db: float = 40.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.highpass_hz <= 400.0 or self.most_gain_db < 0.0:
            raise ValueError("features: highpass_hz from 0 to 400, most_gain_db from 0 on expected")
        if SAMPLES_PER_FRAME % self.hop or self.window < self.hop or self.fft < self.window:
            raise ValueError("features: hop must divide 640, hop <= window <= fft expected")

    @property
    def hops(self) -> int:
        """Spectra per video frame."""
        return SAMPLES_PER_FRAME // self.hop

    @property
    def dim(self) -> int:
        """Numbers per video frame: ``hops * num_mels`` plus the level itself."""
        return self.hops * self.num_mels + 1

    @property
    def left_samples(self) -> int:
        """Conditioned samples before a frame that its spectra see."""
        return self.window - self.hop

    @property
    def lookahead_frames(self) -> int:
        """Frames after a frame that its feature sees: none."""
        return 0


@struct.dataclass
class FeatureState:
    """What survives between steps: the last samples, and how loud it was."""

    raw: Array  # (B, TAPS - 1) as recorded, for the high-pass
    tail: Array  # (B, left_samples) conditioned
    power: Array  # (B, level_frames - 1) mean square per frame; negative: not heard yet
    level: HeardLevel


def init_state(cfg: FeatureConfig, batch: int) -> FeatureState:
    """Nothing heard yet, for ``batch`` streams."""
    return FeatureState(  # numpy: jnp would compile a program for each
        raw=np.zeros((batch, TAPS - 1), np.float32),
        tail=np.zeros((batch, cfg.left_samples), np.float32),
        power=np.full((batch, cfg.level_frames - 1), -1.0, np.float32),
        level=init_level(batch),
    )


def step(
    cfg: FeatureConfig, state: FeatureState, samples_BS: jax.Array
) -> tuple[FeatureState, jax.Array]:
    """Features of the frames in ``samples_BS`` (16 kHz, S a multiple of 640): ``(B, S/640, dim)``.

    Log spectra are scaled to about [-1, 1]; the last number is the level, 0 at the floor and about
    1 at full scale.
    """
    batch, length = samples_BS.shape
    if length % SAMPLES_PER_FRAME:
        raise ValueError(f"samples come in whole frames of {SAMPLES_PER_FRAME}, got {length}")
    frames = length // SAMPLES_PER_FRAME
    samples_BS = samples_BS.astype(jnp.float32)
    raw = state.raw
    if cfg.highpass_hz:
        # Of what came before the first sample only one thing is known: no step lies between.
        fresh = state.power[:, -1:] < 0.0
        raw = jnp.concatenate([jnp.where(fresh, samples_BS[:, :1], raw), samples_BS], axis=1)
        samples_BS = highpass(raw, cfg.highpass_hz)
        raw = raw[:, length:]
    heard = jnp.concatenate([state.tail, samples_BS], axis=1)
    index = np.arange(frames * cfg.hops)[:, None] * cfg.hop + np.arange(cfg.window)[None, :]
    window = np.hanning(cfg.window + 2)[1:-1].astype(np.float32)
    cuts = heard[:, index] * window[None, None]  # (B, T hops, window)
    spectrum = jnp.square(jnp.abs(jnp.fft.rfft(cuts, n=cfg.fft)))
    # Normalised so that a band holds its share of the mean square of the signal.
    spectrum = spectrum / float(cfg.fft * np.sum(window**2) / 2)
    mel = jnp.einsum("btf,fm->btm", spectrum, _mel_filters(cfg))

    frame_power = jnp.square(samples_BS.reshape(batch, frames, -1)).mean(-1)
    power = jnp.concatenate([state.power, frame_power], axis=1)
    level = _windowed_mean(power, cfg.level_frames)  # (B, T)
    active, speech_db = follow(state.level, frame_power)
    gain = 10.0 ** (jnp.clip(cfg.usual_db - speech_db, 0.0, cfg.most_gain_db) / 10.0)
    floor = 10.0 ** (cfg.floor_db / 10.0)
    level_db = 10.0 * jnp.log10(level * gain + floor)
    # A band at the level of the whole signal over num_mels reads 0 dB.
    reference = level_db - 10.0 * np.log10(cfg.num_mels)
    mel = mel.reshape(batch, frames, -1) * gain[..., None]
    mel_db = 10.0 * jnp.log10(mel + 1e-12) - reference[..., None]
    half = cfg.range_db / 2.0
    scaled = (jnp.clip(mel_db, -1.5 * half, half) + 0.5 * half) / half
    loudness = (level_db - cfg.floor_db) / -cfg.floor_db
    features = jnp.concatenate([scaled, loudness[..., None]], axis=-1)
    new = FeatureState(
        raw=raw,
        tail=heard[:, heard.shape[1] - cfg.left_samples :],
        power=power[:, power.shape[1] - (cfg.level_frames - 1) :],
        level=active,
    )
    return new, features


kept_step = Program(step, static=("cfg",))  # compiled, and kept between processes


@functools.partial(jax.jit, static_argnums=0)
def features(cfg: FeatureConfig, samples_BS: jax.Array) -> jax.Array:
    """Features of a whole signal; a last part frame is completed with silence."""
    frames = -(-samples_BS.shape[1] // SAMPLES_PER_FRAME)
    missing = frames * SAMPLES_PER_FRAME - samples_BS.shape[1]
    padded = jnp.pad(samples_BS, ((0, 0), (0, missing)))
    return step(cfg, init_state(cfg, samples_BS.shape[0]), padded)[1]


def power_db(cfg: FeatureConfig, features_TD: np.ndarray) -> np.ndarray:
    """(T,) mean square of each frame in dB re full scale, as the nets hear it: conditioned.

    Told from the frame's features, to about 1 dB.
    """
    half = cfg.range_db / 2.0
    rows = np.asarray(features_TD, np.float64)
    level_db = cfg.floor_db - cfg.floor_db * rows[:, -1:]
    bands_db = (rows[:, :-1] - 0.5) * half + level_db - 10.0 * np.log10(cfg.num_mels)
    return 10.0 * np.log10((10.0 ** (bands_db / 10.0)).sum(axis=1) / cfg.hops)


def num_frames(num_samples: int) -> int:
    """Video frames that ``num_samples`` samples at 16 kHz fill, the last one perhaps in part."""
    return -(-num_samples // SAMPLES_PER_FRAME)


def _windowed_mean(power_BT: jax.Array, width: int) -> jax.Array:
    """Mean of the last ``width`` entries that were heard, for each position from ``width - 1``.

    A direct sum rather than a difference of cumulative sums: the result does not depend on how
    long ago the signal began.
    """
    heard = (power_BT >= 0.0).astype(jnp.float32)
    value = jnp.maximum(power_BT, 0.0)
    kernel = jnp.ones((width, 1, 1), jnp.float32)
    both = jnp.concatenate([value, heard], axis=0)[..., None]
    sums = jax.lax.conv_general_dilated(
        both, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )[..., 0]
    total, count = jnp.split(sums, 2, axis=0)
    return total / jnp.maximum(count, 1.0)


@functools.lru_cache(maxsize=8)
def _mel_filters(cfg: FeatureConfig) -> np.ndarray:
    """Triangles equally spaced in mel (O'Shaughnessy's formula), peak 1: (fft/2 + 1, num_mels)."""

    def mel(hz):
        return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)

    def hertz(m):
        return 700.0 * (10.0 ** (np.asarray(m) / 2595.0) - 1.0)

    edges = hertz(np.linspace(mel(cfg.fmin_hz), mel(cfg.fmax_hz), cfg.num_mels + 2))
    bins = np.arange(cfg.fft // 2 + 1) * SAMPLE_RATE_HZ / cfg.fft
    # Low bands are narrower than a bin: widen them, or they would stay empty.
    width = SAMPLE_RATE_HZ / cfg.fft
    lower = (bins[:, None] - edges[None, :-2]) / np.maximum(edges[1:-1] - edges[:-2], width)
    upper = (edges[None, 2:] - bins[:, None]) / np.maximum(edges[2:] - edges[1:-1], width)
    return np.maximum(0.0, np.minimum(np.minimum(lower, upper), 1.0)).astype(np.float32)
