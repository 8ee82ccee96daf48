"""What `vasa-jax prepare` makes, and what it refuses."""

from __future__ import annotations

import dataclasses

from vasa_jax.data.records import SHARD_BYTES
from vasa_jax.prepare.quality import QualityConfig
from vasa_jax.prepare.sync import SyncConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotConfig:
    """Cuts between shots (``shots.py``)."""

    least: float = 0.08  # mean change of a small picture, 0 to 1, below which nothing is a cut
    times: float = 4.0  # the usual change of the frames around


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Faces through shots (``tracks.py``)."""

    every: int = 10  # frames from one look for faces to the next
    overlap: float = 0.25  # of two boxes that are one face
    gap: int = 3  # looks that may find nothing in between
    seconds: tuple[float, float] = (2.0, 10.0)  # of a clip
    beside: float = 0.4  # size of another face in the square, beside ours, that makes it two people


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropConfig:
    """One square per clip (``crop.py``)."""

    least: float = 0.7  # side of the square in the source, in sides of the target
    slide: float = 0.08  # of its side that a square is moved by at most to lie in the picture
    outside: float = 0.05  # share of the square that may lie outside the picture
    found: float = 0.9  # share of frames in which a face must be found
    grow: float = 1.5  # a square that must be larger than this to hold the head is refused
    crf: int = 14  # quality of what is kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Everything about a preparation; a folder of clips belongs to one."""

    size: int = 512  # side of the squares, px
    shots: ShotConfig = ShotConfig()
    tracks: TrackConfig = TrackConfig()
    crop: CropConfig = CropConfig()
    sync: SyncConfig = SyncConfig()
    quality: QualityConfig = QualityConfig()
    piece_s: int = 30  # seconds that are looked through at once; what a kill may lose
    people: str = "sources"  # who is who without --identities: "sources" or "folders"
    licence: str = ""  # of the videos, in words; kept with every clip
    shard_bytes: int = SHARD_BYTES
    group: int = 64  # videos that go through the stages together: what lies unpacked meanwhile
