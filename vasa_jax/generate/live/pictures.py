"""The last steps of a live picture: put back into its surroundings, and marked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from vasa_jax.face.find import align
from vasa_jax.face.find.finder import Face
from vasa_jax.provenance.payload import Payload
from vasa_jax.provenance.watermark import Marker

Drawn = tuple[np.ndarray, float]  # a picture uint8, and the ms that rendering took


class Surroundings(Protocol):
    """The picture that a face was cut from, and where."""

    @property
    def image(self) -> np.ndarray: ...

    @property
    def crop(self) -> align.Crop: ...

    @property
    def face(self) -> Face: ...

    @property
    def size(self) -> int:
        """Side of the model's square in px."""

    def frame_size(self, frame: Literal["full", "crop"] = "full") -> tuple[int, int]:
        """Width and height of a finished picture."""


class Finisher:
    """Finishes the pictures of one stream; those of a hop beside one another.

    Making one takes a moment, and compiles where its size is new: it belongs in a thread.
    """

    def __init__(
        self, talker: Surroundings, frame: Literal["full", "crop"], payload: Payload | None
    ):
        """``payload`` is what the invisible mark says; None leaves it out."""
        self._talker = talker
        self._paster = None
        if frame == "full":
            self._paster = align.Paster(
                talker.image, talker.crop, talker.size, landmarks=talker.face.landmarks
            )
        self._marker = None
        if payload is not None:
            width, height = talker.frame_size(frame)
            self._marker = Marker(payload, height, width)

    def rehearse(self) -> None:
        """Does once all that a picture needs, and leaves no trace of it."""
        talker = self._talker
        square = align.extract(talker.image, talker.crop, talker.size)
        # The portrait's own square moves nothing, so a mask has nothing to remember.
        self._pasted(square, None if self._paster is None else self._paster.mask(square))

    def begin(
        self, squares: Sequence[asyncio.Future[Drawn] | None]
    ) -> list[asyncio.Task[Drawn] | None]:
        """Finished pictures of the model's squares; None where there is none."""
        tasks: list[asyncio.Task[Drawn] | None] = []
        before: asyncio.Future[None] | None = None
        for square in squares:
            if square is None:
                tasks.append(None)
                continue
            masked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            tasks.append(asyncio.ensure_future(self._finish(square, before, masked)))
            before = masked
        return tasks

    def portrait(self) -> np.ndarray:
        """The portrait as it is, as a frame."""
        picture = self._talker.image
        if self._paster is None:
            picture = align.extract(picture, self._talker.crop, self._talker.size)
        return self._marked(picture)

    async def _finish(
        self, drawn: asyncio.Future[Drawn], before: asyncio.Future[None] | None,
        masked: asyncio.Future[None],
    ) -> Drawn:  # fmt: skip
        loop = asyncio.get_running_loop()
        try:
            picture, render_ms = await drawn
            mask = None
            if self._paster is not None:
                if before is not None:  # what a mask remembers comes in the order of the frames
                    await before
                mask = await loop.run_in_executor(None, self._paster.mask, picture)
        finally:
            if not masked.done():
                masked.set_result(None)
        return await loop.run_in_executor(None, self._pasted, picture, mask), render_ms

    def _pasted(self, square: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        if self._paster is not None and mask is not None:
            square = self._paster.paste(square, mask)
        return self._marked(square)

    def _marked(self, picture: np.ndarray) -> np.ndarray:
        return picture if self._marker is None else self._marker(picture)
