"""Where a sound file really ends, and where others begin that were joined to it.

Programs that speak give their answer in pieces, and people join them end to end. A decoder takes
what the first piece says of itself (length, rate, padding) for the whole. So the pieces are found
first, by the marks that formats begin with, and each is decoded by itself. A wav or aiff file has
an end of its own: what lies behind it is not its sound, and is counted.

Nothing is decoded here, and no length in a header is believed where the bytes say otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Bytes: TypeAlias = "bytes | mmap.mmap"

# Lengths that programs write when they can't go back: 0, or close to the largest (signed) number.
UNKNOWN_SIZE = 0x7FFF0000
_OPEN = b"\xff\xff\xff\xff"


class Piece(NamedTuple):
    """One container's bytes: ``header``, then those of the file from ``start`` to ``end``."""

    start: int
    end: int
    header: bytes = b""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds."""

    pieces: tuple[Piece, ...]
    format: str | None = None  # what PyAV calls the pieces' format; None: not known here
    left: int = 0  # bytes behind the end that are not part of it
    missing: int = 0  # bytes that are promised beyond the end of the file


def contents(data: Bytes) -> Contents:
    """The pieces of a sound file, by its first bytes; of formats unknown here one, the whole."""
    start = _behind_tags(data)
    if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return _wav(data)
    if data[:4] == b"FORM":
        end = 8 + int.from_bytes(data[4:8], "big")
        stop = min(end + end % 2, len(data))
        return Contents((Piece(0, stop),), "aiff", _filled(data, stop), max(0, end - len(data)))
    if data[:4] == b"OggS":
        return Contents(_pieces(_ogg_links(data), len(data)), "ogg")
    if data[start : start + 4] == b"fLaC":
        marks = (m.start() for m in re.finditer(rb"fLaC[\x00\x80]\x00\x00\x22", data))
        return Contents(_pieces(marks, len(data)), "flac")
    if data[4:8] == b"ftyp":
        return _boxes(data)
    if _mp3_frame(data, start):
        return Contents(_pieces(_mp3_parts(data), len(data)), "mp3")
    return Contents((Piece(0, len(data)),))


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, without reading them all."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""  # which can't be mapped
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


class PieceFile(io.RawIOBase):
    """A piece as a file for reading."""

    def __init__(self, data: Bytes, piece: Piece):
        self._data, self._piece = data, piece
        self._position = 0
        self._length = len(piece.header) + piece.end - piece.start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        header, begin = self._piece.header, self._position
        end = self._length if size < 0 else min(self._length, begin + size)
        if begin >= end:
            return b""
        self._position = end
        shift = self._piece.start - len(header)
        behind = self._data[max(begin + shift, self._piece.start) : max(end + shift, 0)]
        return header[begin:end] + behind if begin < len(header) else behind


def _pieces(starts: Iterable[int], end: int) -> tuple[Piece, ...]:
    """From each start to the next; what lies before the first belongs to it."""
    edges = [0, *list(starts)[1:], end]
    return tuple(map(Piece, edges[:-1], edges[1:]))


def _filled(data: Bytes, start: int) -> int:
    """How many bytes there are from ``start`` on; none when all are zero, which is padding."""
    for block in range(start, len(data), 1 << 20):
        if data[block : block + (1 << 20)].strip(b"\0"):
            return len(data) - start
    return 0


# -- wav ---------------------------------------------------------------------------------------


def _wav(data: Bytes) -> Contents:
    pieces: list[Piece] = []
    start = 0
    while True:
        sound, length, end = _riff(data, start)
        if not sound:  # no sound before the end: for the decoder to say
            return Contents((*pieces, Piece(start, len(data))), "wav")
        if length is not None:
            stop = min(end, len(data))
            return Contents((*pieces, Piece(start, stop)), "wav", left=_filled(data, stop),
                            missing=max(0, sound + length - len(data)))  # fmt: skip
        # The sound goes on to the next header, or as far as there is any.
        header = b"RIFF" + _OPEN + data[start + 8 : sound - 4] + _OPEN
        following = re.compile(rb"RIFF....WAVE", re.DOTALL).search(data, sound, end)
        pieces.append(Piece(sound, following.start() if following else end, header))
        if following is None:
            return Contents(tuple(pieces), "wav", left=_filled(data, end))
        start = following.start()


def _riff(data: Bytes, start: int) -> tuple[int, int | None, int]:
    """Of the file at ``start``: where its sound begins, bytes of it (None: unknown), its end."""
    size, position, long_length = len(data), start + 12, 0
    while position + 8 <= size:
        name, length = data[position : position + 4], _little(data, position + 4)
        if name == b"data":
            break
        if name == b"ds64":
            long_length = int.from_bytes(data[position + 16 : position + 24], "little")
        position += 8 + length + length % 2
    else:
        return 0, None, size
    sound = position + 8
    if length == 0xFFFFFFFF and long_length:
        length = long_length
    if length >= UNKNOWN_SIZE and sound + length > size:
        return sound, None, size
    # Some leave out the byte that makes an odd length even.
    end = max(_behind_chunks(data, sound + length + odd) for odd in (0, length % 2))
    if end <= sound + length + 1 < size and not _NAME.match(data, end):
        # What follows is no chunk. Does the header itself say that the file goes on?
        riff_end = start + 8 + _little(data, start + 4)
        if end < riff_end <= size + 1:
            return sound, None, min(riff_end, size)
        if not length:
            return sound, None, size
    return sound, length, end


_NAME = re.compile(rb"[ -~]{4}")


def _behind_chunks(data: Bytes, position: int) -> int:
    """Where the chunks end that begin at ``position``: names in letters, lengths that fit."""
    while position + 8 <= len(data):
        behind = position + 8 + _little(data, position + 4)
        if not _NAME.match(data, position) or behind > len(data):
            break
        if data[position : position + 4] in (b"RIFF", b"RF64", b"BW64"):
            break
        position = min(behind + behind % 2, len(data))
    return position


def _little(data: Bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little")


# -- mp4 ---------------------------------------------------------------------------------------


def _boxes(data: Bytes) -> Contents:
    """An ISO file is a row of boxes; joined to it, another begins with its own ``ftyp``."""
    starts, position, size = [], 0, len(data)
    while position + 8 <= size:
        length = int.from_bytes(data[position : position + 4], "big")
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        elif length == 0:  # to the end of the file
            length = size - position
        if length < 8 or not _NAME.match(data, position + 4):
            break
        if data[position + 4 : position + 8] == b"ftyp":
            starts.append(position)
        position += length
    stop = min(position, size)
    return Contents(_pieces(starts, stop), "mp4", _filled(data, stop), max(0, position - size))


# -- streams without an end ----------------------------------------------------------------------


def _ogg_links(data: Bytes) -> Iterator[int]:
    """Starts of the links of a chain: pages that begin a stream after others had gone on."""
    position, going_on = 0, True
    while (position := data.find(b"OggS", position)) >= 0 and position + 27 <= len(data):
        begins, segments = data[position + 5] & 2, data[position + 26]
        if begins and going_on:
            yield position
        going_on = not begins
        position += 27 + segments + sum(data[position + 27 : position + 27 + segments])


_ID3 = re.compile(rb"ID3[\x02-\x04][\x00-\x04][\x00\x10\x20\x40\x60\x80\xa0\xc0\xe0][\x00-\x7f]{4}")
_COUNT = re.compile(rb"(?:Xing|Info)\x00\x00\x00[\x00-\x0f]|VBRI\x00\x01")


def _mp3_parts(data: Bytes) -> Iterator[int]:
    """Starts of the parts of an mp3: tags at their front, or frames that count the frames."""
    yield 0
    position = _behind_tags(data)
    marks = re.compile(rb"|".join((_ID3.pattern, _COUNT.pattern)))
    while found := marks.search(data, position):
        position = found.end()
        if found[0].startswith(b"ID3"):
            behind = _behind_tags(data, found.start())
            if _mp3_frame(data, behind):
                yield found.start()
                position = behind + 4 + 36 + 8  # the frame behind a tag may count, too
        else:
            for offset in (36,) if found[0][:4] == b"VBRI" else (36, 21, 13):
                frame = found.start() - offset
                if frame > _behind_tags(data) and _mp3_frame(data, frame):
                    yield frame
                    break


def _mp3_frame(data: Bytes, position: int) -> bool:
    """Whether bytes can be the header of a frame of MPEG audio, layer 3."""
    head = data[position : position + 4] if position >= 0 else b""
    return (
        len(head) == 4
        and head[0] == 0xFF
        and head[1] & 0xE6 == 0xE2
        and head[1] & 0x18 != 0x08  # a version that is none
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )


def _behind_tags(data: Bytes, position: int = 0) -> int:
    """Where the ID3 tags end that begin at ``position``."""
    while _ID3.match(data, position):
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte
        position += 10 + size + (10 if data[position + 5] & 0x10 else 0)
    return position
