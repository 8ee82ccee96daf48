"""Video files: frames in at 25 per second, H.264 with AAC sound out."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS
from vasa_jax.io.atomic import media_address, partial_path, writing_failed
from vasa_jax.io.audio import clean as clean_audio
from vasa_jax.io.audio import decode
from vasa_jax.io.channels import to_stereo
from vasa_jax.io.media import open_media
from vasa_jax.io.resampling import resample
from vasa_jax.runtime import unfinished

Path = str | os.PathLike[str]

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# An AAC packet is 1024 samples and the last one is filled up, so below 32 kHz a player could hear
# more than one video frame of extra silence; lower rates are written as a multiple of themselves.
AAC_RATES_HZ = (32000, 44100, 48000)
AUDIO_BIT_RATE = 128_000
BT709 = 1  # the same code for matrix, primaries and transfer in H.264
LIMITED = 1


def read_video(path: Path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames of any video as uint8 RGB (Y, X, 3) at 25 per second, upright, square pixels.

    Frame i is the picture on screen at i / 25 s after the first one, so that other rates are
    repeated or skipped. ``start`` and ``stop`` ask for some of them: the same pictures as of the
    whole, read from the key frame before. Memory stays flat. Raises UserError when it can't be read
    or has no picture; a damaged end just ends the video.
    """
    with open_media(path, "video") as container:
        if not container.streams.video:
            raise UserError(f"{path} has no picture track")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = _until_broken(container.decode(stream))
        first = next(frames, None)
        if first is None:
            raise UserError(f"{path} has no pictures that can be read")
        begin, written = _stamp(first), 0
        if start and begin is not None:
            first, frames, written = _from_key_frame(container, stream, begin, start)
        rate = Fraction(stream.average_rate or FPS)
        shown: Any = None
        now = Fraction(0)
        rgb: np.ndarray | None = None
        for frame in itertools.chain([first], frames):
            stamp = _stamp(frame)
            if stamp is not None:
                begin = stamp if begin is None else begin
                now = stamp - begin
            # Half a frame of grace: a 25 fps file with rounded stamps passes one to one.
            while shown is not None and (written + Fraction(1, 2)) / FPS < now:
                if written == stop:
                    return
                if written >= start:
                    rgb = _to_rgb(shown) if rgb is None else rgb
                    yield rgb
                written += 1
            shown, rgb = frame, None
            now += 1 / rate
        while written == 0 or (written + Fraction(1, 2)) / FPS < now:
            if written == stop:
                return
            if written >= start:
                rgb = _to_rgb(shown) if rgb is None else rgb
                yield rgb
            written += 1


def _stamp(frame: Any) -> Fraction | None:
    """When a frame is shown, on its container's clock in seconds."""
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base


def _until_broken(frames: Iterator[Any]) -> Iterator[Any]:
    """Decoded frames; an error after the first one ends them."""
    import av

    some = False
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except av.FFmpegError:
            if not some:
                raise
            return
        some = True
        yield frame


def _from_key_frame(
    container: Any, stream: Any, begin: Fraction, start: int
) -> tuple[Any, Iterator[Any], int]:
    """Frames from a key frame on that is shown no later than grid frame ``start``, and ``start``.

    Where a file can't be read from its middle, all frames, and 0.
    """
    import av

    wanted = begin + Fraction(start, FPS)
    for back in (0, 10):  # seconds: some indices point behind what they promise
        if wanted - back <= begin:
            break
        with contextlib.suppress(av.FFmpegError):
            container.seek(int((wanted - back) / stream.time_base), stream=stream, backward=True)
            frames = _until_broken(container.decode(stream))
            first = next(frames, None)
            stamp = None if first is None else _stamp(first)
            if stamp is not None and stamp <= wanted:
                return first, frames, start
    container.seek(int(begin / stream.time_base), stream=stream, backward=True)
    frames = _until_broken(container.decode(stream))
    first = next(frames, None)
    if first is None:
        raise UserError(f"{container.name} has no pictures that can be read twice")
    return first, frames, 0


def read_video_audio(path: Path) -> tuple[np.ndarray, int]:
    """The sound of a video, float32 (S, C) and its rate in Hz; sample 0 is at the first picture.

    Raises UserError when there is none.
    """
    samples, rate = decode(path, align_to_video=True)
    return clean_audio(samples, rate, path), rate


def _to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame as upright uint8 RGB with square pixels."""
    width, height = frame.width, frame.height
    aspect = getattr(frame, "sample_aspect_ratio", None)
    if aspect and Fraction(aspect) > 0:
        width = max(2, round(width * Fraction(aspect)))
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class VideoWriter:
    """Writes frames, one by one, to H.264 with AAC sound of the same length.

    ``size`` is (width, height); an odd side gets one repeated pixel row, so ``encoded_size`` is
    even. ``audio`` is ((S, C) or (S,) float in [-1, 1], rate in Hz): it keeps its rate from 32
    to 48 kHz (others are resampled) and one or two channels (more are mixed to stereo), is cut
    or filled with silence to the length of the picture. Memory does not grow with length.

    Use it in ``with``. The file appears under its name only when the block ends well; an error
    inside, or a full disk (UserError), leaves nothing behind.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: int = FPS,
        audio: tuple[np.ndarray, int] | None = None,
        crf: int = 18,
        preset: str = "veryfast",
    ):
        self.path = os.fspath(path)
        suffix = os.path.splitext(self.path)[1].lower()
        if suffix not in CONTAINERS:
            raise UserError(f"can't write {self.path}: name it .mp4 (or .mov, .mkv)")
        self.size = size
        self.encoded_size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self.fps = fps
        self.num_frames = 0
        self._container: Any = None
        self._sound: _SoundTrack | None = None
        self._partial = partial_path(path)
        try:
            self._open(CONTAINERS[suffix], audio, crf=crf, preset=preset)
        except OSError as error:  # FFmpeg's errors are OSErrors too
            self._discard()
            raise writing_failed(self.path, error) from error
        except BaseException:
            self._discard()
            raise

    def _open(
        self, container: str, audio: tuple[np.ndarray, int] | None, *, crf: int, preset: str
    ) -> None:
        import av

        # +faststart puts the index in front, so that a browser starts before it has everything.
        options = {} if container == "matroska" else {"movflags": "+faststart"}
        self._container = av.open(
            media_address(self._partial), "w", format=container, options=options
        )
        video = self._container.add_stream("libx264", rate=self.fps)
        video.width, video.height = self.encoded_size
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(crf), "preset": preset}
        context = video.codec_context
        context.time_base = Fraction(1, self.fps)
        tag_colours(context)
        self._video = video
        if audio is not None:
            self._sound = _SoundTrack(self._container, *audio)

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame, uint8 (height, width, 3) RGB. UserError when the disk is full."""
        if self._container is None:
            raise ValueError("this VideoWriter is closed")
        if frame.shape != (self.size[1], self.size[0], 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"expected a uint8 frame {(self.size[1], self.size[0], 3)}, "
                f"got {frame.dtype} {frame.shape}"
            )
        import av

        pad_x, pad_y = self.encoded_size[0] - self.size[0], self.encoded_size[1] - self.size[1]
        if pad_x or pad_y:
            frame = np.pad(frame, [(0, pad_y), (0, pad_x), (0, 0)], mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = to_yuv(picture)
        picture.pts = self.num_frames
        picture.time_base = Fraction(1, self.fps)
        try:
            self._container.mux(self._video.encode(picture))
            self.num_frames += 1
            if self._sound is not None:
                self._sound.advance(self.num_frames, self.fps)
        except OSError as error:
            self._discard()
            raise writing_failed(self.path, error) from error

    def close(self) -> None:
        """Finishes the file and gives it its name. Raises UserError when that fails."""
        if self._container is None:
            return
        if not self.num_frames:
            self._discard()
            raise ValueError("no frame was written")
        try:
            self._container.mux(self._video.encode(None))
            if self._sound is not None:
                self._sound.finish()
            container, self._container = self._container, None
            container.close()
            self._verify()
            os.replace(self._partial, self.path)
            unfinished.settled(self._partial)
        except OSError as error:
            self._discard()
            raise writing_failed(self.path, error) from error
        except BaseException:
            self._discard()
            raise

    def _verify(self) -> None:
        """The muxer may pass over a failed last write; the index tells. Raises OSError."""
        import av

        with av.open(media_address(self._partial)) as written:
            counted = written.streams.video[0].frames
            if counted not in (0, self.num_frames):  # Matroska has no count: 0
                raise OSError(None, f"only {counted} of {self.num_frames} frames arrived")

    def _discard(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except OSError:
            pass  # writing the index fails too when the disk is full
        unfinished.settled(self._partial)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()


def tag_colours(context: Any) -> None:
    """Says in an encoder's context what ``to_yuv`` makes of pictures."""
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED


def to_yuv(picture: Any) -> Any:
    """A picture of PyAV as H.264 keeps it."""
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def _aac_rate(rate: int) -> int:
    """The rate to encode at: the same, a multiple, the next higher, or 48 kHz; in this order."""
    multiples = [r for r in AAC_RATES_HZ if r % rate == 0]
    higher = [r for r in AAC_RATES_HZ if r >= rate]
    return (multiples or higher or [AAC_RATES_HZ[-1]])[0]


class _SoundTrack:
    """The sound stream of a video being written, always up to the pictures written so far."""

    def __init__(self, container: Any, samples: np.ndarray, rate: int):
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.shape[1] > 2:
            samples = to_stereo(samples)
        self.rate = _aac_rate(rate)
        self.samples = resample(samples, rate, self.rate)
        self.channels = samples.shape[1]
        self.layout = "mono" if self.channels == 1 else "stereo"
        self.container = container
        self.stream = container.add_stream("aac", rate=self.rate)
        self.stream.layout = self.layout
        self.stream.bit_rate = AUDIO_BIT_RATE
        self.stream.time_base = Fraction(1, self.rate)
        self.position = 0

    def advance(self, num_frames: int, fps: int) -> None:
        """Writes the samples that belong to the first ``num_frames`` pictures."""
        import av

        end = math.floor(num_frames * self.rate / fps)
        block = self.samples[self.position : end]
        block = np.pad(block, [(0, end - self.position - len(block)), (0, 0)])
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block.T), format="fltp", layout=self.layout
        )
        frame.sample_rate = self.rate
        frame.time_base = Fraction(1, self.rate)
        frame.pts = self.position
        self.position = end
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))
