"""Sound out of media files by PyAV: all that can be decoded, whatever a header says of it.

Streams change their rate or their channels on the way, pieces of several files follow each other,
packets are damaged. What comes out is one array, at the highest rate and with the most channels of
all; a damaged packet leaves silence of its length, and how much that was is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from io import RawIOBase
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.io import channels
from vasa_jax.io.atomic import existing_file, media_address
from vasa_jax.io.resampling import resample

Path = str | os.PathLike[str]

MAX_SECONDS = 4 * 3600  # float32 stereo at 48 kHz: 5.5 GB; beyond that it is a mistake
LATE_START = Fraction(1, 10)  # s; decoders that give nothing for the first packets are filled up
FILLING_S = 0.1  # that the last packet may be longer than the sound
STATES_LENGTH = {"ogg", "mp4"}  # formats that do, to the sample
LONGEST_PACKET_S = 1.0  # of silence in place of a damaged one; its own word may be damaged, too


class TooLongError(UserError):
    """More than MAX_SECONDS of sound."""


@contextlib.contextmanager
def open_media(
    path: Path, what: str, *, source: RawIOBase | None = None, format: str | None = None
) -> Iterator[Any]:
    """A PyAV container for reading; its errors, also those raised inside, become UserError.

    ``source`` holds the bytes instead of the file ``path``, which then only has its name in errors.
    """
    import av

    file = existing_file(path, what)
    try:
        # Only local files: a playlist must not make us open a connection or other paths.
        options = {"protocol_whitelist": "file"} if source is None else {}
        with av.open(source or media_address(file), format=format, options=options) as container:
            yield container
    except (av.FFmpegError, UnicodeError) as error:
        raise UserError(f"can't read {file} as {what}: it is damaged or of no known format "
                        f"({type(error).__name__})") from error  # fmt: skip


@dataclasses.dataclass
class _Stretch:
    """Sound of one rate and one set of channels."""

    rate: int
    names: tuple[str, ...]  # of the channels' loudspeakers
    blocks: list[np.ndarray]  # (n, C) float32

    def samples(self) -> np.ndarray:
        """All blocks as one array; they are given up one by one, since both might not fit."""
        out = np.empty((sum(map(len, self.blocks)), len(self.names)), np.float32)
        end = len(out)
        while self.blocks:
            block = self.blocks.pop()
            out[end - len(block) : end] = block
            end -= len(block)
        return out


class Decoding:
    """The sound of containers, one after the other, as it is decoded."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds = 0.0
        self.damaged = 0.0  # seconds that are silent because they can't be decoded
        self.position = 0  # bytes of the last container up to the end of its last packet
        self.broke_off = False  # an error ended the last container before its end
        self._start: Fraction | None = None
        self._stretches: list[_Stretch] = []

    @property
    def start(self) -> Fraction:
        """Time of the first sample on its container's clock, in seconds."""
        return self._start or Fraction(0)

    def add(self, container: Any) -> None:
        """Appends all of the first sound stream. Raises UserError when it is too long.

        FFmpeg's errors are raised when nothing was decoded before; later ones end the stream.
        """
        import av

        if not container.streams.audio:
            raise UserError(f"{self.path} has no sound track")
        stream, self.broke_off = container.streams.audio[0], False
        packets = container.demux(stream)
        before = self.seconds
        current: tuple[Any, ...] | None = None
        resampler: Any = None
        broken: Exception | None = None
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.EOFError):
                break
            except (av.FFmpegError, IndexError) as error:  # a stream that PyAV did not know of
                broken = broken or error
                self.broke_off = True
                break
            if packet.pos is not None and packet.size:
                self.position = packet.pos + packet.size
            try:
                frames = packet.decode()
            except av.EOFError:
                break
            except av.FFmpegError as error:
                broken = broken or error
                self._hole(packet)
                continue
            for frame in frames:
                kind = frame.format.name, frame.layout.name, frame.sample_rate
                if kind != current:
                    if current is None:
                        self._begin(stream, frame)
                    current = kind
                    # Not frame.to_ndarray: PyAV miscounts the planes of eight and more channels.
                    resampler = av.AudioResampler(
                        format="flt", layout=frame.layout, rate=frame.sample_rate
                    )
                for part in resampler.resample(frame):
                    block = part.to_ndarray().reshape(-1, len(part.layout.channels))
                    self._append(part, block)
        if current is None and broken is not None:
            raise broken if isinstance(broken, av.FFmpegError) else av.InvalidDataError(0, "")
        if STATES_LENGTH.intersection(container.format.name.split(",")) and stream.duration:
            self._cut(self.seconds - before - float(stream.duration * stream.time_base))

    def joined(self) -> tuple[np.ndarray, int]:
        """All sound, float32 (S, C), and its rate in Hz; (0, 1) when there is none."""
        stretches, self._stretches = self._stretches, []
        if not stretches:
            return np.zeros((0, 1), np.float32), 0
        rate = max(s.rate for s in stretches)
        kinds = {s.names for s in stretches}
        widest = max(map(len, kinds))
        parts = []
        while stretches:
            stretch = stretches.pop(0)
            part = stretch.samples()
            if (len(kinds) > 1 and widest > 1) or not channels.in_order(stretch.names):
                part = channels.to_stereo(part, stretch.names)
            parts.append(resample(part, stretch.rate, rate))
        return parts[0] if len(parts) == 1 else np.concatenate(parts), rate

    def _begin(self, stream: Any, frame: Any) -> None:
        """Of a container's first frame: its time; what the decoder kept to itself is silence."""
        origin = start_seconds(stream)
        first = origin if frame.pts is None else frame.pts * frame.time_base
        if 0 < first - origin <= LATE_START:
            length = round((first - origin) * frame.sample_rate)
            self._append(frame, np.zeros((length, len(frame.layout.channels)), np.float32))
            first = origin
        if self._start is None:
            self._start = first

    def _append(self, frame: Any, block: np.ndarray) -> None:
        rate, names = frame.sample_rate, tuple(c.name for c in frame.layout.channels)
        last = self._stretches[-1] if self._stretches else None
        if last is None or (last.rate, last.names) != (rate, names):
            last = _Stretch(rate, names, [])
            self._stretches.append(last)
        self._lengthen(last, block)

    def _cut(self, seconds: float) -> None:
        """Takes away what an encoder added to fill its last packet."""
        if self._stretches and 0 < seconds <= FILLING_S:
            last = self._stretches[-1]
            count = round(seconds * last.rate)
            while count > 0 and last.blocks:
                block = last.blocks.pop()
                if len(block) > count:
                    last.blocks.append(block[: len(block) - count])
                count -= len(block)
            self.seconds -= seconds

    def _hole(self, packet: Any) -> None:
        """Silence in place of a packet that can't be decoded."""
        if not self._stretches or not packet.duration:
            return
        last = self._stretches[-1]
        seconds = min(float(packet.duration * packet.time_base), LONGEST_PACKET_S)
        self._lengthen(last, np.zeros((round(seconds * last.rate), len(last.names)), np.float32))
        self.damaged += seconds

    def _lengthen(self, stretch: _Stretch, block: np.ndarray) -> None:
        stretch.blocks.append(block)
        self.seconds += len(block) / stretch.rate
        if self.seconds > MAX_SECONDS:
            hours = MAX_SECONDS // 3600
            raise TooLongError(f"{self.path} is longer than {hours} hours; cut it first")


def start_seconds(stream: Any) -> Fraction:
    """When a stream begins on its container's clock."""
    return stream.start_time * stream.time_base if stream.start_time is not None else Fraction(0)
