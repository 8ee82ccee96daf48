"""The sound of one live stream: what came, in any pieces at any rate, as frames of 640 samples.

A stream's clock is this sound: frame n shows samples [640 n, 640 (n + 1)), whether somebody said
them or silence took their place. Sound arrives by ``push``; ``fill`` puts silence where none came
in time, so that the clock never stops; ``discard`` is the interruption: what was not taken yet is
as if it had never been said. Not thread-safe: one owner, the stream.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

RATES_HZ = (8_000, 48_000)  # what speech comes in


class Timeline:
    """Frames of sound at 16 kHz, taken in order and looked at a little ahead."""

    def __init__(self, rate_hz: int = SAMPLE_RATE_HZ):
        """Raises UserError for a rate outside of ``RATES_HZ``."""
        low, high = RATES_HZ
        if not low <= rate_hz <= high:
            raise UserError(f"sound at {rate_hz} Hz; give {low} to {high} Hz")
        self.rate_hz = rate_hz
        self._resampler = None if rate_hz == SAMPLE_RATE_HZ else _resampler(rate_hz)
        self._samples = np.zeros(0, np.float32)  # not taken yet
        self._spoken = np.zeros(0, bool)  # False where silence was put in
        self.taken = 0  # frames
        self.filled = 0  # samples of silence put in, in all
        self.dropped = 0  # samples thrown away, in all

    @property
    def waiting(self) -> int:
        """Whole frames that have not been taken."""
        return len(self._samples) // SAMPLES_PER_FRAME

    @property
    def waiting_samples(self) -> int:
        return len(self._samples)

    @property
    def end(self) -> float:
        """Time of the last sample, in frames."""
        return self.taken + len(self._samples) / SAMPLES_PER_FRAME

    def push(self, samples: np.ndarray, *, last: bool = False) -> None:
        """Appends mono samples at the timeline's rate; not finite ones become 0.

        ``last`` gets the end of an utterance out of the resampler. Raises UserError for arrays that
        are no sound.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind not in "fi":
            raise UserError(f"live sound comes as mono samples, not {samples.dtype}"
                            f" {samples.shape}")  # fmt: skip
        if samples.dtype.kind == "i":
            samples = samples.astype(np.float32) / float(np.iinfo(samples.dtype).max)
        samples = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
            if last:
                self._resampler.clear()
        self._append(np.clip(samples, -1.0, 1.0), True)

    def fill(self, frames: int) -> None:
        """Silence, until ``frames`` whole frames wait."""
        missing = frames * SAMPLES_PER_FRAME - len(self._samples)
        if missing > 0:
            self._append(np.zeros(missing, np.float32), False)
            self.filled += missing

    def look(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """The next ``frames`` frames without taking them: samples (n, 640), said (n,) bool.

        After the last sample there are zeros.
        """
        size = frames * SAMPLES_PER_FRAME
        samples, said = np.zeros(size, np.float32), np.zeros(size, bool)
        waiting = self._samples[:size]
        samples[: len(waiting)], said[: len(waiting)] = waiting, self._spoken[:size]
        shape = (frames, SAMPLES_PER_FRAME)
        return samples.reshape(shape), np.any(said.reshape(shape), axis=1, keepdims=True)[:, 0]

    def take(self, frames: int) -> None:
        """The next ``frames`` frames are done with."""
        self._cut(frames * SAMPLES_PER_FRAME)
        self.taken += frames

    def discard(self) -> int:
        """Throws away what waits; how many samples that was."""
        count = int(self._spoken.sum())
        if self._resampler is not None:
            self._resampler.clear()
        self._cut(len(self._samples))
        self.dropped += count
        return count

    def trim(self, frames: int) -> int:
        """Throws away the oldest of what waits beyond ``frames`` frames; how many samples."""
        excess = max(0, len(self._samples) - frames * SAMPLES_PER_FRAME)
        self._cut(excess)
        self.dropped += excess
        return excess

    def _append(self, samples: np.ndarray, spoken: bool) -> None:
        self._samples = np.concatenate([self._samples, samples])
        self._spoken = np.concatenate([self._spoken, np.full(len(samples), spoken)])

    def _cut(self, count: int) -> None:
        self._samples, self._spoken = self._samples[count:], self._spoken[count:]


def _resampler(rate_hz: int):
    import soxr

    return soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="LQ")
