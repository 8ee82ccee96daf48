"""What the first bytes of a picture say: its size, and whether it is a HEIC.

Some decoders take memory for all of a picture when they open it, and some call a picture beyond
their own limits damaged. Read here first, a picture that is too large is refused as what it is.
"""

from __future__ import annotations

import struct

HEAD_BYTES = 256 * 1024  # holds the meta box of a phone's HEIC with hundreds of tiles
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1",
                b"msf1")  # fmt: skip


def declared_size(head: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG, WebP, HEIC or AVIF begins with; None where they aren't seen."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR" and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp_size(head)
    if head[4:8] == b"ftyp":
        return _largest_extent(head)
    return None


def is_heic(head: bytes) -> bool:
    """Whether it is a HEIF container whose pictures are not AVIF: HEVC, as phones write it."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return False
    size = min(struct.unpack(">I", head[:4])[0], 256)
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    return head[8:12] in _HEIF_BRANDS and not any(b in _AVIF_BRANDS for b in brands)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(head[24:27], "little") + 1,
                int.from_bytes(head[27:30], "little") + 1)  # fmt: skip
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _largest_extent(head: bytes) -> tuple[int, int] | None:
    """The largest of the ``ispe`` boxes: those of tiles and thumbnails are smaller."""
    sizes, mark = [], struct.pack(">I4sI", 20, b"ispe", 0)
    at = head.find(mark)
    while 0 <= at <= len(head) - 20:
        sizes.append(struct.unpack(">II", head[at + 12 : at + 20]))
        at = head.find(mark, at + 20)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)
