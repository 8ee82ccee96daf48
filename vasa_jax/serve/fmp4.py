"""Fragmented MP4 for a player that is always at the live edge: H.264 pictures, AAC sound.

Pictures and sound are two tracks in two byte streams (a browser has one ``SourceBuffer`` each), so
that neither ever waits to be interleaved with the other; their time stamps are on one clock. Every
``moof`` is written the moment its samples exist, with explicit durations: a muxer that learns a
sample's duration from the next one would add a frame of delay. Boxes: ISO/IEC 14496-12, -14, -15.

AAC starts ``PRIMING`` samples before the sound; pictures are moved by the same, so that both agree.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np

FPS = 25
TIMESCALE = 48_000  # of both tracks, and the rate of the sound
FRAME_TICKS = TIMESCALE // FPS
AAC_SAMPLES = 1024
PRIMING = 1024
VIDEO_TRACK, AUDIO_TRACK = 1, 2
_KEY, _OTHER = 0x02000000, 0x01010000  # sample flags: depends on nothing; on others, no sync sample


def box(kind: str, *parts: bytes) -> bytes:
    """A box of a four-letter kind."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def full_box(kind: str, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def init_segment(track: int, entry: bytes, *, size: tuple[int, int] | None) -> bytes:
    """``ftyp`` and ``moov`` of one track with the sample entry ``entry``; ``size`` of pictures."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    width, height = size or (0, 0)
    video = size is not None
    mvhd = full_box("mvhd", 0, 0, struct.pack(">IIIIIH10x", 0, 0, TIMESCALE, 0, 0x10000, 0x100),
                    matrix, bytes(24), struct.pack(">I", track + 1))  # fmt: skip
    volume = 0 if video else 0x100
    tkhd = full_box("tkhd", 0, 3, struct.pack(">IIIII8xHHHH", 0, 0, track, 0, 0, 0, 0, volume, 0),
                    matrix, struct.pack(">II", width << 16, height << 16))  # fmt: skip
    mdhd = full_box("mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, TIMESCALE, 0, 0x55C4, 0))
    handler = b"vide" if video else b"soun"
    hdlr = full_box("hdlr", 0, 0, struct.pack(">I4s12x", 0, handler), b"vasa-jax\0")
    header = full_box("vmhd", 0, 1, bytes(8)) if video else full_box("smhd", 0, 0, bytes(4))
    dinf = box("dinf", full_box("dref", 0, 0, struct.pack(">I", 1), full_box("url ", 0, 1)))
    empty = [full_box(k, 0, 0, bytes(4)) for k in ("stts", "stsc")]
    stbl = box("stbl", full_box("stsd", 0, 0, struct.pack(">I", 1), entry), *empty,
               full_box("stsz", 0, 0, bytes(8)), full_box("stco", 0, 0, bytes(4)))  # fmt: skip
    minf = box("minf", header, dinf, stbl)
    trak = box("trak", tkhd, box("mdia", mdhd, hdlr, minf))
    mvex = box("mvex", full_box("trex", 0, 0, struct.pack(">IIIII", track, 1, 0, 0, 0)))
    return box("ftyp", b"iso6", bytes(4), b"iso6mp41") + box("moov", mvhd, trak, mvex)


def segment(track: int, sequence: int, start: int, samples: list[tuple[bytes, int, bool]]) -> bytes:
    """``moof`` and ``mdat`` of samples (bytes, duration, is key) from tick ``start`` on."""
    table = b"".join(
        struct.pack(">III", ticks, len(data), _KEY if key else _OTHER)
        for data, ticks, key in samples
    )

    def moof(offset: int) -> bytes:
        trun = full_box("trun", 0, 0x701, struct.pack(">Ii", len(samples), offset), table)
        tfhd = full_box("tfhd", 0, 0x20000, struct.pack(">I", track))
        tfdt = full_box("tfdt", 1, 0, struct.pack(">Q", start))
        mfhd = full_box("mfhd", 0, 0, struct.pack(">I", sequence))
        return box("moof", mfhd, box("traf", tfhd, tfdt, trun))

    return moof(len(moof(0)) + 8) + box("mdat", *(data for data, *_ in samples))


class VideoTrack:
    """H.264 of pictures uint8 (Y, X, 3), one packet per picture and at once."""

    def __init__(self, size: tuple[int, int], *, crf: int = 24, preset: str = "superfast"):
        """``size`` is (width, height); odd sides get one repeated row."""
        import av

        self._pad = size[0] % 2, size[1] % 2
        self.size = size[0] + self._pad[0], size[1] + self._pad[1]
        self._codec: Any = av.CodecContext.create("libx264", "w")
        self._codec.width, self._codec.height = self.size
        self._codec.pix_fmt = "yuv420p"
        self._codec.time_base = Fraction(1, FPS)
        self._codec.framerate = Fraction(FPS)
        self._codec.color_primaries = self._codec.color_trc = self._codec.colorspace = 1
        self._codec.color_range = 1
        self._codec.thread_count = 1
        self._codec.options = {
            "preset": preset, "tune": "zerolatency", "profile": "main", "crf": str(crf),
            "x264-params": f"keyint={FPS}:min-keyint={FPS}:scenecut=0",
        }  # fmt: skip
        self._codec.flags |= int(av.codec.context.Flags.global_header)
        self._codec.open()
        sps, pps = _parameter_sets(bytes(self._codec.extradata or b""))
        self.codec = "avc1." + sps[1:4].hex()
        avcc = bytes([1, *sps[1:4], 0xFF, 0xE1]) + struct.pack(">H", len(sps)) + sps
        avcc += b"\x01" + struct.pack(">H", len(pps)) + pps
        entry = box(
            "avc1", bytes(6), struct.pack(">H16xHHIIIH32sHh", 1, *self.size, 0x480000, 0x480000, 0,
                                          1, b"", 24, -1), box("avcC", avcc),
        )  # fmt: skip
        self.init = init_segment(VIDEO_TRACK, entry, size=self.size)
        self.mime = f'video/mp4; codecs="{self.codec}"'
        self._count = 0
        self._picture: np.ndarray | None = None
        self._frame: Any = None

    def _convert(self, picture: np.ndarray) -> Any:
        import av

        right, below = self._pad
        if right or below:
            picture = np.pad(picture, [(0, below), (0, right), (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    def add(self, picture: np.ndarray, index: int) -> bytes:
        """The segment of the picture of frame ``index``."""
        if picture is not self._picture:  # a late stream repeats the same array
            self._picture, self._frame = picture, self._convert(picture)
        frame = self._frame
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        packets = self._codec.encode(frame)
        if len(packets) != 1:
            raise RuntimeError("the encoder holds pictures back")
        self._count += 1
        data, key = _length_prefixed(bytes(packets[0])), bool(packets[0].is_keyframe)
        start = index * FRAME_TICKS + PRIMING
        return segment(VIDEO_TRACK, self._count, start, [(data, FRAME_TICKS, key)])


class AudioTrack:
    """AAC of mono sound at 16 kHz."""

    def __init__(self, *, rate_hz: int = 16_000, bit_rate: int = 96_000):
        import av
        import soxr

        self._resample = soxr.ResampleStream(rate_hz, TIMESCALE, 1, dtype="float32", quality="MQ")
        self._codec: Any = av.CodecContext.create("aac", "w")
        self._codec.sample_rate, self._codec.layout = TIMESCALE, "mono"
        self._codec.format, self._codec.bit_rate = "fltp", bit_rate
        self._codec.time_base = Fraction(1, TIMESCALE)
        self._codec.flags |= int(av.codec.context.Flags.global_header)
        self._codec.open()
        config = bytes(self._codec.extradata or b"")
        decoder = b"\x40\x15" + bytes(3) + struct.pack(">II", bit_rate, bit_rate)
        decoder += _descriptor(5, config)
        es = b"\0\2\0" + _descriptor(4, decoder) + _descriptor(6, b"\x02")
        esds = full_box("esds", 0, 0, _descriptor(3, es))
        entry = box("mp4a", bytes(6), struct.pack(">H8xHHIHH", 1, 1, 16, 0, TIMESCALE, 0), esds)
        self.init = init_segment(AUDIO_TRACK, entry, size=None)
        self.mime = 'audio/mp4; codecs="mp4a.40.2"'
        self._waiting = np.zeros(0, np.float32)
        self._sent, self._packets, self._count = 0, 0, 0

    def add(self, sound: np.ndarray) -> bytes:
        """A segment of all packets that are complete with these samples; empty when none is."""
        import av

        self._waiting = np.append(self._waiting, self._resample.resample_chunk(
            np.ascontiguousarray(sound, np.float32)))  # fmt: skip
        packets = []
        while len(self._waiting) >= AAC_SAMPLES:
            block, self._waiting = self._waiting[:AAC_SAMPLES], self._waiting[AAC_SAMPLES:]
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = TIMESCALE, Fraction(1, TIMESCALE)
            frame.pts = self._sent
            self._sent += AAC_SAMPLES
            packets += [(bytes(p), AAC_SAMPLES, True) for p in self._codec.encode(frame)]
        if not packets:
            return b""
        self._count += 1
        start = self._packets * AAC_SAMPLES
        self._packets += len(packets)
        return segment(AUDIO_TRACK, self._count, start, packets)


def _descriptor(tag: int, body: bytes) -> bytes:
    return bytes([tag, len(body)]) + body


def _nal_units(stream: bytes) -> list[bytes]:
    """NAL units of an Annex B byte stream."""
    units, at = [], stream.find(b"\0\0\1")
    while at >= 0:
        end = stream.find(b"\0\0\1", at + 3)
        unit = stream[at + 3 : end if end >= 0 else len(stream)]
        units.append(unit.rstrip(b"\0") if end >= 0 else unit)
        at = end
    return units


def _parameter_sets(extradata: bytes) -> tuple[bytes, bytes]:
    units = {unit[0] & 31: unit for unit in _nal_units(extradata)}
    return units[7], units[8]


def _length_prefixed(stream: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(u)) + u for u in _nal_units(stream))
