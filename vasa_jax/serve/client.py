"""A client of the live protocol for programs; needs aiohttp and numpy, no JAX.

    async with LiveClient("http://localhost:8765") as client:
        portrait = await client.portrait("photo.jpg", consent="it is a picture of myself")
        async with client.session(portrait=portrait, rate=22050, source="file") as session:
            await session.say(samples)                 # float32, mono, any number
            async for message in session:              # video, audio, stats, ...
                ...

A message is a ``Message``: its ``header`` (with ``type``, ``index``, ``time`` and ``ms``, the
timings) and ``payload``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.serve import protocol

AHEAD_S = 3.0  # sound sent before its time; an interruption has little to throw away then


class Message(NamedTuple):
    """What the server sent; text messages have no payload."""

    header: dict[str, Any]
    payload: bytes = b""

    @property
    def type(self) -> str:
        return self.header["type"]


class LiveClient:
    """A server. ``url`` begins with http or https; errors of the server raise UserError."""

    def __init__(self, url: str, *, token: str = ""):
        self.url, self._token = url.rstrip("/"), token
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> LiveClient:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *unused: object) -> None:
        if self._http is not None:
            await self._http.close()

    @property
    def http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("use LiveClient in async with")
        return self._http

    async def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        async with self.http.get(self.url + "/healthz") as response:
            return await response.json()

    async def portrait(self, picture: str | Path | bytes, *, consent: str = "") -> str:
        """Uploads a picture (a path or its bytes); the name that sessions know it by.

        ``consent`` says who allowed it to be animated; servers refuse pictures without it.
        """
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        headers[protocol.CONSENT_HEADER] = quote(consent)
        async with self.http.post(
            self.url + protocol.PORTRAIT_PATH, data=data, headers=headers
        ) as response:
            answer = await response.json()
        if response.status != 200:
            raise UserError(f"the server refused the picture: {answer['message']}")
        return answer["portrait"]

    @contextlib.asynccontextmanager
    async def session(self, **start: Any) -> AsyncIterator[LiveSession]:
        """A session; ``start`` as in PROTOCOL.md: portrait, rate, source, output, controls ..."""
        async with self.http.ws_connect(
            self.url + protocol.SESSION_PATH, max_msg_size=16 << 20, heartbeat=15.0
        ) as socket:
            first = {"type": "start", "version": protocol.VERSION, "format": "f32"} | start
            if self._token:
                first["token"] = self._token
            await socket.send_json(first)
            session = LiveSession(socket, int(start.get("rate", 16_000)))
            message = await session.receive()
            if message is None or message.type != "ready":
                raise UserError("the server did not begin the session")
            session.ready = message.header
            try:
                yield session
            finally:
                await session.stop()


class LiveSession:
    """A running session: sound in, an async iterator of messages out."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, rate: int):
        self._socket, self._rate = socket, rate
        self._ends = 0.0  # when the sound sent so far will have been said
        self.ready: dict[str, Any] = {}

    async def say(self, samples: np.ndarray) -> None:
        """Sends mono float32 samples; waits so that at most ``AHEAD_S`` seconds lie ahead."""
        samples = np.asarray(samples, "<f4")
        size = max(1, self._rate // 10)
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            now = time.monotonic()
            self._ends = max(self._ends, now) + len(piece) / self._rate
            if self._ends - now > AHEAD_S:
                await asyncio.sleep(self._ends - now - AHEAD_S)
            await self._socket.send_bytes(piece.tobytes())

    async def end_utterance(self) -> None:
        """Nothing more for now."""
        await self._socket.send_json({"type": "end_utterance"})

    async def controls(self, **controls: Any) -> None:
        """``gaze=(yaw, pitch)``, ``distance=``, ``emotion={...}``, ``pose=(yaw, pitch, roll)``."""
        await self._socket.send_json({"type": "controls"} | controls)

    async def interrupt(self) -> None:
        """Silence from the next hop on."""
        self._ends = 0.0
        await self._socket.send_json({"type": "interrupt"})

    async def ping(self) -> None:
        """The answer is a ``pong`` message with the same ``t``."""
        await self._socket.send_json({"type": "ping", "t": time.monotonic()})

    async def stop(self) -> None:
        """Ends the session."""
        if not self._socket.closed:
            with contextlib.suppress(ConnectionError):
                await self._socket.send_json({"type": "stop"})
            await self._socket.close()

    async def receive(self) -> Message | None:
        """The next message, None at the end. Raises UserError for an error that ends it."""
        message = await self._socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            return Message(*protocol.unpack(message.data))
        if message.type != aiohttp.WSMsgType.TEXT:
            return None
        header: Mapping[str, Any] = message.json()
        if header["type"] == "error" and header.get("code") != "bad_request":
            raise UserError(f"{header['code']}: {header['message']}")
        if header["type"] == "error" and not self.ready:
            raise UserError(str(header["message"]))
        return Message(dict(header))

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = await self.receive()
        if message is None or message.type == "bye":
            raise StopAsyncIteration
        return message
