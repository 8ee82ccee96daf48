"""One live session over a WebSocket: messages in, encoded pictures and sound out.

Nothing here grows with time: sound waits in the stream's bounded buffer, pictures in its short
queue, and what is sent waits in the socket; a client that does not read is let go.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import secrets
import time
from collections import deque
from typing import Any, Protocol

import numpy as np
from aiohttp import WSMsgType, web

from vasa_jax.core.errors import UserError
from vasa_jax.generate.controls import controls
from vasa_jax.generate.live.stream import LiveFrame, LiveStream
from vasa_jax.serve import fmp4, protocol
from vasa_jax.serve.config import ServeConfig
from vasa_jax.serve.figures import Figures
from vasa_jax.serve.protocol import Refused, Start
from vasa_jax.serve.rtc import Peer

SEND_S = 5.0  # a message that can't be handed over for this long ends the session
_log = logging.getLogger("vasa_jax.serve")
BURST_S, PACE = 3.0, 1.25  # sound of a microphone: so much at once, and faster than the clock


class Host(Protocol):
    """What a session asks of its server."""

    cfg: ServeConfig
    figures: Figures
    consents: dict[str, str]  # of each portrait; "": not asked


class Session:
    """One client and its stream."""

    def __init__(
        self, server: Host, socket: web.WebSocketResponse, stream: LiveStream, start: Start
    ):
        self._server, self._socket, self._stream, self._start = server, socket, stream, start
        self._began = time.monotonic()
        self._last_sound = self._began
        self._samples = 0
        self._encode_ms: deque[float] = deque(maxlen=50)
        self._totals: deque[float] = deque(maxlen=50)
        self._bytes = 0
        self._name = secrets.token_hex(4)
        self.consent = server.consents.get(start.portrait, "")
        self._video: fmp4.VideoTrack | None = None
        self._audio: fmp4.AudioTrack | None = None
        self._peer = Peer(self._hear, start.rate) if start.output == "webrtc" else None

    @property
    def counts(self) -> dict[str, int]:
        """Of the stream."""
        return self._stream.counts

    async def run(self) -> str:
        """Serves until either side ends it; the reason."""
        jobs: list[asyncio.Future[str]] = []
        try:
            await self._send_ready()  # inside: a client may be gone before it has heard anything
            work = [self._listen(), self._show(), self._tell(), self._watch()]
            if self._peer is not None:
                work.append(self._peer.listen())
            jobs = [asyncio.ensure_future(job) for job in work]
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            reason = ""
            for job in done:
                reason = job.result() or reason
            return reason
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await self._stream.aclose()
            if self._peer is not None:
                await self._peer.close()

    def log_start(self) -> None:
        """Says what begins, and who allowed it: a live stream has no file to say it in."""
        payload = self._stream.payload
        self._log(
            "session begins", portrait=self._start.portrait, consent=self.consent or "not asked",
            mark=None if payload is None else payload.to_json(),
        )  # fmt: skip

    def log_end(self) -> None:
        """Says how long it was; nothing of what was said or shown."""
        self._log("session ends", frames=self.counts["frames"])

    def _log(self, event: str, **entries: Any) -> None:
        _log.info(json.dumps({"event": event, "session": self._name} | entries))

    async def _send_ready(self) -> None:
        stream, start = self._stream, self._start
        size = stream.talker.frame_size(start.frame)  # type: ignore[arg-type]
        ready: dict[str, Any] = {
            "type": "ready",
            "version": protocol.VERSION,
            "synthetic": True,
            "notice": "These pictures are synthetic: generated from one portrait and a voice.",
            "mark": None if stream.payload is None else stream.payload.to_json(),
            "consent": self.consent,
            "output": start.output,
            "fps": fmp4.FPS,
            "width": size[0],
            "height": size[1],
            "latency_ms": {
                "declared": stream.latency_ms,
                "hop": stream.cfg.hop * 40.0,
                "ahead": stream.latency_ms - stream.cfg.hop * 40.0,
            },
            "limits": {
                "buffer_s": stream.cfg.buffer_s,
                "session_s": self._server.cfg.session_s,
                "idle_s": self._server.cfg.idle_s,
            },
        }
        if start.output == "mp4":
            self._video, self._audio = fmp4.VideoTrack(size), fmp4.AudioTrack()
            ready |= {"video_mime": self._video.mime, "audio_mime": self._audio.mime,
                      "priming_s": fmp4.PRIMING / fmp4.TIMESCALE}  # fmt: skip
        await self._socket.send_json(ready)
        if self._video is not None and self._audio is not None:
            for kind, init in (("video_init", self._video.init), ("audio_init", self._audio.init)):
                await self._send(protocol.pack({"type": kind}, init))

    async def _listen(self) -> str:
        """What the client sends."""
        async for message in self._socket:
            if message.type == WSMsgType.BINARY:
                self._take_sound(message.data)
            elif message.type == WSMsgType.TEXT:
                try:
                    if await self._obey(protocol.read_text(message.data)):
                        return "stopped"
                except (Refused, UserError) as error:
                    # A wrong message is answered, not punished; a flood of them is a limit below.
                    await self._socket.send_json(
                        {"type": "error", "code": "bad_request", "message": str(error)}
                    )
            else:
                return "disconnected"
        return "disconnected"

    def _take_sound(self, data: bytes) -> None:
        self._hear(protocol.read_samples(data, self._start.format))

    def _hear(self, samples: np.ndarray) -> None:
        now, cfg = time.monotonic(), self._stream.cfg
        self._last_sound = now
        self._samples += len(samples)
        seconds, rate = self._samples / self._start.rate, self._start.rate
        if self._start.source == "microphone":
            if seconds > (now - self._began) * PACE + BURST_S:
                raise Refused("too_fast", "a microphone can't be that fast; use source file")
        elif self._stream.timeline.waiting_samples / 16_000 + len(samples) / rate > cfg.buffer_s:
            raise Refused("too_fast", f"more than {cfg.buffer_s:g} s of sound are waiting")
        self._stream.push_nowait(samples)

    async def _obey(self, message: dict[str, Any]) -> bool:
        """Does what a text message says; True to stop."""
        kind, stream = message["type"], self._stream
        if kind == "controls":
            steer_stream(stream, message)
        elif kind == "interrupt":
            await self._socket.send_json({"type": "interrupted", "index": stream.interrupt()})
        elif kind == "end_utterance":
            stream.end_utterance()
        elif kind == "ping":
            sent = message.get("t")
            if sent is not None and not protocol.is_number(sent):
                raise Refused("bad_request", "ping: t is a number")
            await self._socket.send_json({"type": "pong", "t": sent})
        elif kind == "offer" and self._peer is not None:
            answer = await self._peer.answer(message.get("sdp"))
            await self._socket.send_json({"type": "answer", "sdp": answer})
        elif kind == "stop":
            return True
        else:
            raise Refused("bad_request", f"no message {kind[:40]!r}")
        return False

    async def _show(self) -> str:
        """Frames, encoded in a thread, as fast as the stream makes and the client reads them."""
        loop = asyncio.get_running_loop()
        async for frame in self._stream:
            began = time.perf_counter()
            picture, sound = b"", b""
            if self._peer is not None:
                self._peer.show(frame)  # which has threads of its own to encode in
            else:
                picture, sound = await loop.run_in_executor(None, self._encode, frame)
            encode = (time.perf_counter() - began) * 1e3
            total = frame.ms.get("total", 0.0) + encode
            header = {
                "index": frame.index,
                "time": round(frame.time, 3),
                "drawn": frame.drawn,
                "speaking": frame.speaking,
                "ms": {k: round(v, 1) for k, v in frame.ms.items()}
                | {"encode": round(encode, 1), "total": round(total, 1)},
            }
            if self._peer is not None:
                await self._send(protocol.pack({"type": "frame"} | header))
            else:
                if sound:
                    await self._send(protocol.pack({"type": "audio"} | header, sound))
                await self._send(protocol.pack({"type": "video"} | header, picture))
            self._encode_ms.append(encode)
            self._totals.append(total)
            figures = self._server.figures
            figures.add("frames_total")
            figures.add("frames_not_drawn_total", not frame.drawn)
            figures.latency(total)
        return "finished"

    def _encode(self, frame: LiveFrame) -> tuple[bytes, bytes]:
        if self._video is not None and self._audio is not None:
            return self._video.add(frame.picture, frame.index), self._audio.add(frame.sound)
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(frame.picture).save(out, "JPEG", quality=88)
        return out.getvalue(), np.round(frame.sound * 32767).astype("<i2").tobytes()

    async def _tell(self) -> str:
        """Once a second: how it goes."""
        before, at, sent = dict(self._stream.counts), time.monotonic(), 0
        while True:
            await asyncio.sleep(1.0)
            now, counts = time.monotonic(), dict(self._stream.counts)
            span = now - at
            totals = sorted(self._totals) or [0.0]
            await self._socket.send_json(
                {
                    "type": "stats",
                    "time": round(now - self._began, 2),
                    "fps": round((counts["drawn"] - before["drawn"]) / span, 1),
                    "counts": counts,
                    "buffered_s": round(self._stream.timeline.waiting_samples / 16_000, 2),
                    "kbit_s": round((self._bytes - sent) * 8e-3 / span),
                    "latency_ms": {
                        "p50": round(totals[len(totals) // 2], 1),
                        "p95": round(totals[int(len(totals) * 0.95)], 1),
                        "declared": self._stream.latency_ms,
                    },
                }
            )
            before, at, sent = counts, now, self._bytes

    async def _watch(self) -> str:
        """Ends what takes too long."""
        cfg = self._server.cfg
        while True:
            await asyncio.sleep(min(1.0, cfg.idle_s / 4))
            now = time.monotonic()
            if now - self._began > cfg.session_s:
                raise Refused("too_long", f"a session lasts {cfg.session_s:g} s")
            if now - self._last_sound > cfg.idle_s:
                raise Refused("idle", f"no sound for {cfg.idle_s:g} s")

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_bytes(message)
        except TimeoutError:
            raise Refused("too_slow", "the client does not read what it gets") from None
        self._bytes += len(message)
        self._server.figures.add("bytes_sent_total", len(message))


def steer_stream(stream: LiveStream, table: dict[str, Any]) -> None:
    """Controls of a message given to a stream. Raises Refused or UserError."""
    steer = protocol.read_controls(table)
    stream.ask(None if steer.controls is None else controls(**steer.controls), pose=steer.pose)
