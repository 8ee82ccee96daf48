"""The server's door: connections have little time, and little room, until they have shown a token.

A *stranger* is a connection that has not. It must have sent the head of a request within ``head_s``
and have its answer after ``life_s``, and it gets no further ones when it is half as old as that. Of
one address there are at most ``per_address`` strangers and of all at most ``connections``; one more
takes the place of the stranger that has been there longest, so that nobody who hurries can be kept
out by others who wait. A *guest* has shown the token (or needs none) and stays for as long as its
session does.

Connections are accepted here and not by asyncio's server, which has no such limits and, with no
file descriptor left, reports that a hundred times a second for every connection that waits. aiohttp
gets them afterwards; what it does with its connections is its own business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import logging
import os
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from vasa_jax.serve.access import Access, Address, crowd, read_address
from vasa_jax.serve.listening import open_descriptors, raise_descriptor_limit

KEPT_ALIVE_S = 10.0  # a connection between two requests
LINGER_S = 1.0  # for a body that nobody wants, so that its sender reads the answer
REST_S = 0.05  # when the system has no descriptor or memory for one more connection
BURST, PER_SECOND = 32, 100  # connections that are let in: a page is loaded by eight
TELL_S = 10.0  # between two lines of the log on strangers
PARTING_S = 5.0  # for the last words of a session
_log = logging.getLogger("vasa_jax.serve")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Of connections; see above."""

    connections: int = 512
    per_address: int = 32
    head_s: float = 5.0
    life_s: float = 20.0

    def within_descriptors(self, spare: int) -> Limits:
        """These, or as many connections as there are file descriptors for, ``spare`` left over."""
        room = raise_descriptor_limit() - open_descriptors() - spare
        return dataclasses.replace(self, connections=max(8, min(self.connections, room)))


class Visitor(asyncio.Protocol):
    """One connection, between the door and aiohttp, to which it passes everything on."""

    def __init__(self, door: Door, address: Address | None, inside: Callable[[], Any]):
        self.address = address
        self.group: str | None = None  # where it is counted; None: not by address
        self.stranger = True
        self._door, self._inside = door, inside
        self._http: Any = None
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._came = asyncio.get_running_loop().time()
        self._stay(door.limits.head_s)

    # -- what aiohttp is told ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._http = self._inside()
        self._http.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._http.data_received(data)

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def connection_lost(self, error: BaseException | None) -> None:
        self._forget()
        if self._http is not None:
            self._http.connection_lost(error)

    # -- how long it may stay ----------------------------------------------------------------------

    def greet(self, sock: socket, tls: ssl.SSLContext | None) -> None:
        """Makes a transport of the socket; with TLS, when the client has shaken hands."""
        seconds = self._door.limits.head_s if tls else None
        self._greeting = asyncio.ensure_future(
            asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, sock, ssl=tls,
                ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds,
            )
        )  # fmt: skip

        def greeted(greeting: asyncio.Task[Any]) -> None:
            self._greeting = None
            if greeting.cancelled() or greeting.exception() is not None:
                self._forget()  # no TLS, or too late
                sock.close()

        self._greeting.add_done_callback(greeted)

    def asked(self, client: Address | None) -> bool:
        """It has sent the head of a request, for ``client``; whether it may send another one."""
        if not self.stranger:
            return True
        if client != self.address:  # a proxy's connection is its visitor's
            self.address = client
            self._door.count(self)
        self._stay(self._door.limits.life_s)
        return asyncio.get_running_loop().time() - self._came < self._door.limits.life_s / 2

    def admit(self) -> None:
        """It has shown the token: nothing here ends it any more."""
        self.stranger = False
        self._door.count(self)
        self._stay(None)

    def leave(self, seconds: float | None = None) -> None:
        """What it was admitted for is over; so long (``life_s``) it may stay."""
        if self._transport is not None and not self._transport.is_closing():
            self.stranger = True
            self._door.count(self)
            self._stay(self._door.limits.life_s if seconds is None else seconds)

    def drop(self, reason: str) -> None:
        """Ends it, without a word."""
        self._door.note(reason)
        self._forget()
        if self._transport is not None:
            _forget_unsent(self._transport)
            self._transport.abort()
        elif self._greeting is not None:
            self._greeting.cancel()

    def _forget(self) -> None:
        self._stay(None)
        self._door.forget(self)

    def _stay(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.drop, "slow")


class Door:
    """Accepts connections for ``inside``, a factory of aiohttp's protocols.

    ``note`` is told the reason of each connection that was ended here: "slow", "crowded", or the
    system's (as "EMFILE").
    """

    def __init__(
        self,
        sockets: Sequence[socket],
        inside: Callable[[], Any],
        access: Access,
        limits: Limits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        note: Callable[[str], None] = lambda reason: None,
    ):
        self.limits = limits or Limits()
        self._sockets, self._inside, self._access = sockets, inside, access
        self._tls, self._told = tls, note
        self._everybody: set[Visitor] = set()
        self._strangers: dict[Visitor, None] = {}  # the oldest first
        self._groups: dict[str, dict[Visitor, None]] = {}
        self._jobs: list[asyncio.Task[None]] = []
        self._credit, self._counted = float(BURST), 0.0
        self._untold: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begins to accept."""
        self._jobs = [asyncio.create_task(self._accept(listener)) for listener in self._sockets]

    async def close(self) -> None:
        """Accepts no more, and sends the strangers away."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        for visitor in list(self._strangers):
            visitor.drop("closed")
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    # -- coming in ---------------------------------------------------------------------------------

    async def _accept(self, listener: socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # it was gone before it was here
            except OSError as error:
                # No descriptor or no memory: the one who waits longest makes room.
                self.note(errno.errorcode.get(error.errno or 0, "system"))
                _drop_first(self._strangers)
                await asyncio.sleep(REST_S)
                continue
            self._receive(sock, read_address(address[0]))
            await asyncio.sleep(self._breath())  # however many wait, frames come first

    def _breath(self) -> float:
        """Seconds until the next one may come in: ``BURST`` at once, then ``PER_SECOND``."""
        now = asyncio.get_running_loop().time()
        self._credit = min(BURST, self._credit + (now - self._counted) * PER_SECOND) - 1.0
        self._counted = now
        return max(0.0, -self._credit / PER_SECOND)

    def _receive(self, sock: socket, address: Address | None) -> None:
        if len(self._everybody) >= self.limits.connections and not _drop_first(self._strangers):
            self.note("crowded")
            sock.close()
            return
        visitor = Visitor(self, address, self._inside)
        self.count(visitor)
        visitor.greet(sock, self._tls)

    # -- who is there ------------------------------------------------------------------------------

    def count(self, visitor: Visitor) -> None:
        """Counts a new visitor, or one that has changed: its address, or whether it is a guest."""
        self._leave_group(visitor)
        self._everybody.add(visitor)
        if not visitor.stranger:
            self._strangers.pop(visitor, None)
            return
        self._strangers.setdefault(visitor)
        # A proxy has not said yet for whom it comes; this machine's own users have no such limit.
        if not self._access.trusts(visitor.address):
            visitor.group = crowd(visitor.address)
            if len(self._groups.get(visitor.group, {})) >= self.limits.per_address:
                _drop_first(self._groups[visitor.group])
            self._groups.setdefault(visitor.group, {})[visitor] = None

    def forget(self, visitor: Visitor) -> None:
        """It is gone."""
        self._everybody.discard(visitor)
        self._strangers.pop(visitor, None)
        self._leave_group(visitor)

    def note(self, reason: str) -> None:
        """Counts what was ended, and says so now and then: a flood must not flood the log."""
        if reason == "closed":
            return
        self._told(reason)
        self._untold[reason] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        told = {"event": "connections ended at the door", "reasons": dict(self._untold)}
        self._untold.clear()
        _log.info(json.dumps(told | {"connections": len(self._everybody)}))

    def _leave_group(self, visitor: Visitor) -> None:
        group = self._groups.get(visitor.group or "", {})
        group.pop(visitor, None)
        if not group:
            self._groups.pop(visitor.group or "", None)
        visitor.group = None


def _drop_first(strangers: dict[Visitor, None]) -> bool:
    """Sends away the one that has been there longest; False where there is none."""
    first = next(iter(strangers), None)
    if first is not None:
        first.drop("crowded")
    return first is not None


def _forget_unsent(transport: asyncio.Transport) -> None:
    """Lets the system end a connection at once, also to a client that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None and os.name == "posix":
        with contextlib.suppress(OSError):
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


def visitor_of(request: web.BaseRequest) -> Visitor | None:
    """The visitor whose request it is; None where aiohttp accepted the connection itself."""
    transport = request.transport
    found = None if transport is None else transport.get_protocol()
    return found if isinstance(found, Visitor) else None


@contextlib.contextmanager
def guest(visitor: Visitor | None, parting_s: float | None = None) -> Iterator[None]:
    """Nothing at the door ends a connection while it does what it was admitted for."""
    if visitor is not None:
        visitor.admit()
    try:
        yield
    finally:
        if visitor is not None:
            visitor.leave(parting_s)


def meet(access: Access) -> Middleware:
    """A middleware for all paths, unknown ones too: tells the door who asks, checks the host."""

    @web.middleware
    async def meeting(request: web.Request, handler: Handler) -> web.StreamResponse:
        visitor, more = visitor_of(request), True
        if visitor is not None:
            peer = read_address(request.remote or "")
            client = access.client(peer, request.headers.getall("X-Forwarded-For", []))
            more = visitor.asked(client)
        access.check_host(request.headers.get("Host"))
        response = await handler(request)
        if not more and not response.prepared:
            response.force_close()
        return response

    return meeting
