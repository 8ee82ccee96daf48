"""HEIC files for tests, put together box by box, as a phone writes them."""

from __future__ import annotations

import io
import struct

import av
import numpy as np

# Exif orientation -> quarter turns to the left (irot), then the axis of a mirror (imir).
TURNS = {1: (0, None), 2: (0, 1), 3: (2, None), 4: (0, 0), 5: (1, 0), 6: (3, None), 7: (3, 0),
         8: (1, None)}  # fmt: skip


def heic(image_u8: np.ndarray, *, turn: int = 0, mirror: int | None = None, exif: bytes = b"",
         extent: tuple[int, int] | None = None) -> bytes:  # fmt: skip
    """``image_u8`` (Y, X, 3), sides multiples of 8, stored as it is; the boxes ask for the rest.

    ``extent`` is the size that the file claims.
    """
    config, coded = _hevc(image_u8)
    height, width = image_u8.shape[:2]
    width, height = extent or (width, height)
    properties = [config, _full("ispe", struct.pack(">II", width, height))]
    if turn:
        properties.append(_box("irot", bytes([turn])))
    if mirror is not None:
        properties.append(_box("imir", bytes([mirror])))
    uses = bytes([len(properties), *(0x80 | (i + 1) for i in range(len(properties)))])
    items = [(1, b"hvc1", coded)]
    if exif:
        items.append((2, b"Exif", struct.pack(">I", 0) + exif))

    def meta(start: int) -> bytes:
        places = b""
        for number, _, data in items:
            places += struct.pack(">HHHII", number, 0, 1, start, len(data))
            start += len(data)
        infos = b"".join(
            _full("infe", struct.pack(">HH", number, 0) + kind + b"\0", version=2)
            for number, kind, _ in items
        )
        boxes = [
            _full("hdlr", bytes(4) + b"pict" + bytes(13)),
            _full("pitm", struct.pack(">H", 1)),
            _full("iloc", bytes([0x44, 0]) + struct.pack(">H", len(items)) + places),
            _full("iinf", struct.pack(">H", len(items)) + infos),
        ]
        if exif:
            boxes.append(_full("iref", _box("cdsc", struct.pack(">HHH", 2, 1, 1))))
        ipma = _full("ipma", struct.pack(">IH", 1, 1) + uses)
        boxes.append(_box("iprp", _box("ipco", b"".join(properties)) + ipma))
        return _full("meta", b"".join(boxes))

    ftyp = _box("ftyp", b"heic" + bytes(4) + b"mif1heic")
    start = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(start) + _box("mdat", b"".join(data for _, _, data in items))


def _box(kind: str, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind.encode() + content


def _full(kind: str, content: bytes, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]) + content)


def _hevc(image_u8: np.ndarray) -> tuple[bytes, bytes]:
    """The box hvcC and one coded picture, out of an MP4 of one frame."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        plain = "log-level=none:pools=none:frame-threads=1:bframes=0:info=0"
        stream = container.add_stream("libx265", 25, options={"crf": "10", "x265-params": plain})
        stream.height, stream.width = image_u8.shape[:2]
        stream.pix_fmt, stream.codec_context.codec_tag = "yuv420p", "hvc1"
        for packet in stream.encode(av.VideoFrame.from_ndarray(image_u8, "rgb24")):
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    data = file.getvalue()
    at = data.index(b"hvcC") - 4
    config = data[at : at + struct.unpack(">I", data[at : at + 4])[0]]
    with av.open(io.BytesIO(data)) as container:
        coded = b"".join(bytes(packet) for packet in container.demux() if packet.size)
    return config, coded
