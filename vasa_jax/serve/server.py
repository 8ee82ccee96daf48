"""The live server: page, portraits, sessions, health and figures; see PROTOCOL.md.

Safe by default: it listens on this machine alone. On any other address it wants a token, which
every upload and session must bring (``access.py``); a browser's requests must come from the
server's own page (or an allowed origin), so that no other site can use a visitor's server. Uploads
are bounded in size, time and pixels, sessions in number, length and silence, and connections that
have shown no token in number and time (``door.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from socket import socket as Listener
from ssl import SSLContext
from typing import Any
from urllib.parse import unquote

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from vasa_jax.checkpoint.release import Release, load_release
from vasa_jax.core.errors import UserError
from vasa_jax.generate.engine import Engine, engine_for
from vasa_jax.generate.live.stream import live_engine
from vasa_jax.generate.talker import Talker
from vasa_jax.provenance.consent import EXAMPLE_CONSENT, checked_consent
from vasa_jax.serve import protocol, rtc
from vasa_jax.serve.access import Access
from vasa_jax.serve.access import is_local as is_local
from vasa_jax.serve.answers import into_folder, refusal, with_headers
from vasa_jax.serve.config import ServeConfig as ServeConfig
from vasa_jax.serve.decoding import decode_portrait
from vasa_jax.serve.door import (
    KEPT_ALIVE_S,
    LINGER_S,
    PARTING_S,
    Door,
    Visitor,
    guest,
    meet,
    visitor_of,
)
from vasa_jax.serve.figures import Figures
from vasa_jax.serve.protocol import Refused
from vasa_jax.serve.session import Session, steer_stream
from vasa_jax.serve.shelf import Shelf

KEPT_PORTRAITS = 8
SPARE_DESCRIPTORS = 32  # for pictures that are decoded, files, and each session's own


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
        self.access = Access(
            host=cfg.host, token=cfg.token, origins=cfg.origins, public_url=cfg.public_url,
            proxies=cfg.proxies,
        )  # fmt: skip
        self._shelf = Shelf()
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
        """The application, without a port: at ``/`` and at the path of the public URL."""
        app = web.Application(
            client_max_size=protocol.MAX_PORTRAIT_BYTES,
            middlewares=[with_headers, meet(self.access)],
        )
        public = self.access.public.path if self.access.public else "/"
        for base in dict.fromkeys(("/", public)):
            for name in self._shelf.names:
                app.router.add_get(base + name, functools.partial(self._page, name))
            app.router.add_get(base + "healthz", self._health)
            app.router.add_get(base + "metrics", self._metrics)
            app.router.add_post(base + protocol.PORTRAIT_PATH[1:], self._portrait)
            app.router.add_get(base + protocol.SESSION_PATH[1:], self._session)
            app.router.add_post(base + protocol.SESSION_PATH[1:], self._ask)
        if public != "/":  # what the page needs is beside it, not beside its folder
            app.router.add_get(public.rstrip("/"), into_folder)
        app.on_startup.append(self._own_threads)
        app.on_shutdown.append(self._goodbye)
        return app

    @contextlib.asynccontextmanager
    async def open(
        self, sockets: Sequence[Listener], *, tls: SSLContext | None = None
    ) -> AsyncIterator[None]:
        """Serves on listening sockets, which it closes at the end."""
        # No access log: nothing that is said or shown here leaves a trace on the disk. The
        # sessions' log names portraits by a random word, with the consent that came with them.
        runner = web.AppRunner(
            self.app(), access_log=None, shutdown_timeout=3.0, keepalive_timeout=KEPT_ALIVE_S,
            lingering_time=LINGER_S,
        )  # fmt: skip
        await runner.setup()
        assert runner.server is not None
        limits = self.cfg.limits.within_descriptors(SPARE_DESCRIPTORS + 8 * self.live.motion.places)
        door = Door(
            sockets, runner.server, self.access, limits, tls=tls,
            note=lambda reason: self.figures.add("connections_ended_total", reason=reason),
        )  # fmt: skip
        door.open()
        try:
            yield
        finally:
            await door.close()
            await runner.cleanup()

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

    async def _page(self, name: str, request: web.Request) -> web.StreamResponse:
        return self._shelf.answer(name, request)

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
                "token_needed": self.access.token_needed,
                "consent_needed": self.cfg.ask_consent,
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        self.access.check_token(self.access.token_of(request.headers, request.query))
        gauges = {
            "sessions": self.live.motion.taken,
            "max_sessions": self.live.motion.places,
            "portraits": len(self._portraits),
            "latency_declared_ms": self.live.latency_ms,
            "uptime_seconds": time.monotonic() - self._began,
        }
        return web.Response(text=self.figures.text(gauges), content_type="text/plain")

    # -- who may -----------------------------------------------------------------------------------

    def _check_origin(self, request: web.Request) -> None:
        self.access.check_origin(request.headers.get("Origin"), request.headers.get("Host"))

    # -- portraits ---------------------------------------------------------------------------------

    async def _portrait(self, request: web.Request) -> web.Response:
        try:
            self._check_origin(request)
            self.access.check_token(self.access.token_of(request.headers, request.query))
            if self._waiting >= 4:
                raise Refused("busy", "too many pictures at the same time; try again later")
            self._waiting += 1
            try:
                with guest(visitor_of(request)):
                    return await self._take_portrait(request)
            finally:
                self._waiting -= 1
        except (Refused, UserError) as error:
            return self._refusal(error)

    def _refusal(self, error: Refused | UserError) -> web.Response:
        """The answer to a request that is refused, counted."""
        code = error.code if isinstance(error, Refused) else "bad_request"
        self.figures.add("sessions_refused_total", reason=code)
        return refusal(code, str(error))

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
                "warnings": [{"code": f.code, "message": f.text} for f in talker.flaws],
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

    async def _ask(self, request: web.Request) -> web.Response:
        """Whether a session would be let in: a browser does not tell a page why one was not."""
        try:
            self._check_origin(request)
            self.access.check_token(self.access.token_of(request.headers, request.query))
            self._check_places()
        except Refused as error:
            return refusal(error.code, str(error))
        return web.json_response({"status": "ok"})

    async def _session(self, request: web.Request) -> web.StreamResponse:
        token = self.access.token_of(request.headers, request.query)
        try:
            self._check_origin(request)
            if token is not None:  # else it comes with the first message
                self.access.check_token(token)
        except Refused as error:
            return self._refusal(error)
        socket = web.WebSocketResponse(
            heartbeat=self.cfg.heartbeat_s, max_msg_size=protocol.MAX_MESSAGE_BYTES, compress=False
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # gone since; aiohttp finds that, too
            return socket
        self._sockets.add(socket)
        try:
            await self._serve(socket, visitor_of(request), known=token is not None)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _serve(
        self, socket: web.WebSocketResponse, visitor: Visitor | None, *, known: bool
    ) -> None:
        """A session from its first message to its last; ``known``: it has shown the token."""
        started = False
        try:
            session = await self._start(socket, known)
            started = True
            self.figures.add("sessions_total")
            session.log_start()
            try:
                with guest(visitor, PARTING_S):
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

    async def _start(self, socket: web.WebSocketResponse, known: bool) -> Session:
        try:
            async with asyncio.timeout(self.cfg.start_s):
                message = await socket.receive()
        except TimeoutError:
            raise Refused("bad_request", "no start message came") from None
        if message.type != WSMsgType.TEXT:
            raise Refused("bad_request", "the first message is start")
        start = protocol.read_start(protocol.read_text(message.data))
        if start.token or not known:
            self.access.check_token(start.token)
        talker = self._portraits.get(start.portrait)
        if talker is None:
            raise Refused("no_portrait", "that portrait is not known (any more); send it again")
        if start.portrait != protocol.EXAMPLE:
            self._portraits.move_to_end(start.portrait)
        self._check_places()
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

    def _check_places(self) -> None:
        if self.live.motion.taken >= self.live.motion.places:
            places = self.live.motion.places
            raise Refused("busy", f"all {places} places are taken; try again later")

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
