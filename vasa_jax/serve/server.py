"""The live server: page, portraits, sessions, health and figures; see PROTOCOL.md.

Safe by default: it listens on this machine alone. On any other address it wants a token, which
every upload and session must bring; a browser's requests must come from the server's own page (or
an allowed origin), so that no other site can use a visitor's server. Uploads are bounded in size,
time and pixels, sessions in number, length and silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from vasa_jax.checkpoint.release import Release, load_release
from vasa_jax.core.errors import UserError
from vasa_jax.generate.engine import Engine, engine_for
from vasa_jax.generate.realtime import LiveConfig, live_engine
from vasa_jax.generate.talker import Talker
from vasa_jax.provenance.consent import EXAMPLE_CONSENT, checked_consent
from vasa_jax.serve import protocol, rtc
from vasa_jax.serve.decoding import decode_portrait
from vasa_jax.serve.figures import Figures
from vasa_jax.serve.protocol import Refused
from vasa_jax.serve.session import Session, steer_stream

PAGE = Path(__file__).parent / "page"
KEPT_PORTRAITS = 8
START_S = 10.0  # from the connection to the start message
UPLOAD_S = 20.0
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Who may use a server, and how much."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    origins: tuple[str, ...] = ()  # besides the server's own
    session_s: float = 1800.0
    idle_s: float = 300.0  # without sound
    max_side: int = 640  # px of a portrait
    ask_consent: bool = True  # portraits come with a word on who allowed them, or are refused
    upload_s: float = UPLOAD_S
    live: LiveConfig = LiveConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UserError(f"--port: {self.port} is outside 0 to 65535")
        if not is_local(self.host) and len(self.token) < 16:
            raise UserError(
                f"--host {self.host} can be reached by others: give --token with 16 or more "
                f"characters, as in --token {secrets.token_urlsafe(18)}"
            )


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


class LiveServer:
    """A release, its live engine, and the portraits that were prepared for it."""

    def __init__(self, cfg: ServeConfig, release: Release | str = "lite"):
        self.cfg = cfg
        if not isinstance(release, Release):
            release = load_release(release)
        self.release = release
        self.engine: Engine = engine_for(release)
        self.live = live_engine(self.engine, cfg.live)
        self.figures = Figures()
        self._began = time.monotonic()
        self._portraits: OrderedDict[str, Talker] = OrderedDict()
        self.consents: dict[str, str] = {}  # of each portrait; "": not asked
        self._preparing = asyncio.Semaphore(1)
        self._waiting = 0
        self._sockets: set[web.WebSocketResponse] = set()

    def prepare(self, portrait: Any = None) -> None:
        """Loads the example portrait and compiles; called once before serving."""
        import vasa_jax

        talker = Talker(
            self.release,
            vasa_jax.example_portrait() if portrait is None else portrait,
            max_side=self.cfg.max_side,
        )
        self.live.warm_up(talker)
        self._portraits[protocol.EXAMPLE] = talker
        self.consents[protocol.EXAMPLE] = EXAMPLE_CONSENT if portrait is None else ""

    def app(self) -> web.Application:
        """The application, without a port."""
        app = web.Application(client_max_size=protocol.MAX_PORTRAIT_BYTES, middlewares=[_headers])
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/example.png", self._example)
        app.router.add_post(protocol.PORTRAIT_PATH, self._portrait)
        app.router.add_get(protocol.SESSION_PATH, self._session)
        app.router.add_static("/page/", PAGE)
        app.on_startup.append(self._own_threads)
        app.on_shutdown.append(self._goodbye)
        return app

    async def _own_threads(self, app: web.Application) -> None:
        """The loop's threads, all there from the beginning.

        Each keeps memory of its own. A pool that grows when it happens to be busy would make a
        server grow, by steps, for hours.
        """
        count = 2 * self.live.motion.places + 2  # a picture finished and one encoded per session
        pool = ThreadPoolExecutor(count, thread_name_prefix="serve")
        everybody = threading.Barrier(count)
        for _ in range(count):
            pool.submit(everybody.wait)
        asyncio.get_running_loop().set_default_executor(pool)

    # -- plain pages -----------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        self._check_host(request)
        return web.FileResponse(PAGE / "index.html")

    async def _example(self, request: web.Request) -> web.StreamResponse:
        import vasa_jax

        return web.FileResponse(vasa_jax.example_portrait())

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "status": "ok",
                "protocol": protocol.VERSION,
                "release": self.release.name,
                "sessions": self.live.motion.taken,
                "max_sessions": self.live.motion.places,
                "latency_ms": self.live.latency_ms,
                "uptime_s": round(time.monotonic() - self._began, 1),
                "outputs": [o for o in protocol.OUTPUTS if o != "webrtc" or rtc.installed()],
                "token_needed": bool(self.cfg.token),
                "consent_needed": self.cfg.ask_consent,
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        gauges = {
            "sessions": self.live.motion.taken,
            "max_sessions": self.live.motion.places,
            "portraits": len(self._portraits),
            "latency_declared_ms": self.live.latency_ms,
            "uptime_seconds": time.monotonic() - self._began,
        }
        return web.Response(text=self.figures.text(gauges), content_type="text/plain")

    # -- who may -----------------------------------------------------------------------------------

    def _check_host(self, request: web.Request) -> None:
        """On this machine alone, only under its own names: a foreign name is a rebound DNS."""
        name = urlsplit(f"//{request.host}").hostname or ""
        if is_local(self.cfg.host) and not is_local(name):
            raise Refused("unauthorised", "this server answers to localhost alone")

    def _check_origin(self, request: web.Request) -> None:
        self._check_host(request)
        origin = request.headers.get("Origin")
        if origin is None or origin in self.cfg.origins:
            return
        if urlsplit(origin).netloc.lower() != request.host.lower():
            raise Refused("unauthorised", "requests from that site are not allowed")

    def _check_token(self, token: str) -> None:
        if self.cfg.token and not hmac.compare_digest(token.encode(), self.cfg.token.encode()):
            raise Refused("unauthorised", "the token is missing or wrong")

    # -- portraits ---------------------------------------------------------------------------------

    async def _portrait(self, request: web.Request) -> web.Response:
        try:
            self._check_origin(request)
            self._check_token(request.headers.get("Authorization", "").removeprefix("Bearer "))
            if self._waiting >= 4:
                raise Refused("busy", "too many pictures at the same time; try again later")
            self._waiting += 1
            try:
                return await self._take_portrait(request)
            finally:
                self._waiting -= 1
        except (Refused, UserError) as error:
            code = error.code if isinstance(error, Refused) else "bad_request"
            self.figures.add("sessions_refused_total", reason=code)
            status = {"unauthorised": 403, "busy": 503}.get(code, 400)
            return web.json_response({"error": code, "message": str(error)}, status=status)

    async def _take_portrait(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > protocol.MAX_PORTRAIT_BYTES:
            raise Refused("bad_request", "the picture is too large a file; 12 MB at most")
        consent = self._consent(request)
        try:
            async with asyncio.timeout(self.cfg.upload_s):
                data = await request.read()
        except TimeoutError:
            raise Refused("bad_request", "the upload took too long") from None
        except web.HTTPRequestEntityTooLarge:
            raise Refused("bad_request", "the picture is too large a file; 12 MB at most") from None
        began = time.perf_counter()
        async with self._preparing:  # one at a time: it takes what the sessions need
            picture = await decode_portrait(data, max_side=self.cfg.max_side)
            talker = await asyncio.get_running_loop().run_in_executor(None, self._talker, picture)
        name = secrets.token_urlsafe(12)
        self._portraits[name], self.consents[name] = talker, consent
        kept = [key for key in self._portraits if key != protocol.EXAMPLE]
        for key in kept[: max(0, len(kept) - KEPT_PORTRAITS)]:
            del self._portraits[key], self.consents[key]
        self.figures.add("portraits_total")
        size = talker.frame_size()
        return web.json_response(
            {
                "portrait": name,
                "width": size[0],
                "height": size[1],
                "faces": len(talker.faces),
                "ms": round((time.perf_counter() - began) * 1e3, 1),
            }
        )

    def _consent(self, request: web.Request) -> str:
        """The answer that came with an upload. Raises Refused when there has to be one."""
        text = unquote(request.headers.get(protocol.CONSENT_HEADER, ""))
        if not text.strip() and not self.cfg.ask_consent:
            return ""
        try:
            return checked_consent(text)
        except UserError as error:
            raise Refused("no_consent", str(error)) from None

    def _talker(self, picture: np.ndarray) -> Talker:
        talker = Talker(self.release, picture, max_side=self.cfg.max_side)
        # Ready and compiled here, so that no session waits for it.
        self.live.warm_up(talker)
        return talker

    # -- sessions ----------------------------------------------------------------------------------

    async def _session(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_origin(request)
        except Refused as error:
            self.figures.add("sessions_refused_total", reason=error.code)
            return web.json_response({"error": error.code, "message": str(error)}, status=403)
        if len(self._sockets) >= self.live.motion.places + 16:  # those that have not started, too
            return web.json_response({"error": "busy", "message": "too many"}, status=503)
        socket = web.WebSocketResponse(
            heartbeat=15.0, max_msg_size=protocol.MAX_MESSAGE_BYTES, compress=False
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await self._serve(socket)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        """A session from its first message to its last."""
        started = False
        try:
            session = await self._start(socket)
            started = True
            self.figures.add("sessions_total")
            session.log_start()
            try:
                reason = await session.run()
            finally:
                session.log_end()
            self._count(session)
            self.figures.add("sessions_ended_total", reason=reason)
            if not socket.closed:
                await socket.send_json({"type": "bye", "reason": reason})
                await socket.close()
        except (Refused, UserError) as error:
            code = error.code if isinstance(error, Refused) else "bad_request"
            counter = "sessions_ended_total" if started else "sessions_refused_total"
            self.figures.add(counter, reason=code)
            await _part(socket, code, str(error))
        except ConnectionError:
            self.figures.add("sessions_ended_total", reason="disconnected")
        except Exception as error:
            self.figures.add("sessions_ended_total", reason="failed")
            await _part(socket, "failed", f"{type(error).__name__}")
            raise

    async def _start(self, socket: web.WebSocketResponse) -> Session:
        try:
            async with asyncio.timeout(START_S):
                message = await socket.receive()
        except TimeoutError:
            raise Refused("bad_request", "no start message came") from None
        if message.type != WSMsgType.TEXT:
            raise Refused("bad_request", "the first message is start")
        start = protocol.read_start(protocol.read_text(message.data))
        self._check_token(start.token)
        talker = self._portraits.get(start.portrait)
        if talker is None:
            raise Refused("no_portrait", "that portrait is not known (any more); send it again")
        if start.portrait != protocol.EXAMPLE:
            self._portraits.move_to_end(start.portrait)
        if self.live.motion.taken >= self.live.motion.places:
            raise Refused("busy", f"all {self.live.motion.places} places are taken")
        stream = talker.stream(
            rate=start.rate, seed=start.seed, frame=start.frame,  # type: ignore[arg-type]
            microphone=start.source == "microphone", live=self.cfg.live,
        )  # fmt: skip
        try:
            steer_stream(stream, dict(start.controls))
            return Session(self, socket, stream, start)
        except BaseException:
            await stream.aclose()
            raise

    def _count(self, session: Session) -> None:
        counts = session.counts
        self.figures.add("sound_dropped_samples_total", counts["dropped"])
        self.figures.add("interruptions_total", counts["interruptions"])

    async def _goodbye(self, app: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")


async def _part(socket: web.WebSocketResponse, code: str, message: str) -> None:
    """The last message, and the end; a client that is gone or does not read gets neither."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await socket.send_json({"type": "error", "code": code, "message": message})
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2.0):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION)


@web.middleware
async def _headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refused as error:
        response = web.json_response({"error": error.code, "message": str(error)}, status=403)
    if not response.prepared:
        response.headers.update(_HEADERS)
    return response
