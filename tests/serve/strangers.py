"""Connections that never show a token, of every kind, as a process of their own.

    python -m tests.serve.strangers http://localhost:8765 --count 200 --seconds 20

Each stranger holds a connection for as long as the server lets it, then comes back. The last line
on stdout is JSON: for each kind how many connections were made, the longest that one lasted in
seconds, how many never got through, and the statuses of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import select
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

SESSION, PORTRAITS = "/v2/session", "/v2/portraits"
PAUSE_S = 0.3  # before a stranger comes back, so that all of them are no flood of packets
UPGRADE = (
    f"GET {SESSION} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
UPLOAD = f"POST {PORTRAITS} HTTP/1.1\r\nHost: localhost\r\nConsent: me\r\n"


class Stranger:
    """One connection: bytes at once, then ``drip`` twice a second for as long as it is open."""

    first = b""
    drip = b""
    shuts = False  # its own half of the connection, at once

    def __init__(self, host: str, port: int):
        self._where = (host, port)
        self.got = b""

    async def hold(self, until: float) -> float:
        """Seconds that the server held the connection, at most until the loop's time ``until``."""
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, self._where)
            began = loop.time()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._talk(sock, until)
            return loop.time() - began

    async def _talk(self, sock: socket.socket, until: float) -> None:
        loop = asyncio.get_running_loop()
        if self.first:
            await loop.sock_sendall(sock, self.first)
        if self.shuts:
            sock.shutdown(socket.SHUT_WR)
        reading = asyncio.ensure_future(self._read(sock))
        try:
            while loop.time() < until and not reading.done():
                await asyncio.wait([reading], timeout=min(0.5, max(0.0, until - loop.time())))
                if self.drip and not reading.done():
                    await loop.sock_sendall(sock, self.drip)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, sock: socket.socket) -> None:
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            self.got += data


class Silent(Stranger):
    pass


class HalfOpen(Stranger):
    shuts = True


class SlowHead(Stranger):
    first = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    drip = b"X-More: more\r\n"


class SlowBody(Stranger):
    first = (UPLOAD + "Content-Length: 1000000\r\n\r\n").encode()
    drip = b"\xff" * 10


class Garbage(Stranger):
    def __init__(self, host: str, port: int):
        super().__init__(host, port)
        self.first = os.urandom(400) + b"\r\n\r\n"


class MuteSocket(Stranger):
    first = UPGRADE


class SlowSocket(Stranger):
    """The first message of a session, a byte at a time: it would take minutes."""

    first = UPGRADE + b"\x81\xfe\x10\x00\0\0\0\0"
    drip = b"{"


class WrongToken(Stranger):
    TEXT = json.dumps({"type": "start", "version": 2, "token": "not the token"}).encode()
    first = UPGRADE + bytes([0x81, 0x80 | len(TEXT)]) + bytes(4) + TEXT


class OddToken(Stranger):
    first = UPLOAD.encode() + b"Authorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n"


class KeptAlive(Stranger):
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Deaf(Stranger):
    """Asks for much, reads nothing."""

    first = b"GET /example.png HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30

    async def _read(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, getattr(select, "POLLRDHUP", 0))  # the end, whatever lies before it
        while not poll.poll(0):
            await asyncio.sleep(0.2)


KINDS = [Silent, HalfOpen, SlowHead, SlowBody, Garbage, MuteSocket, SlowSocket, WrongToken,
         OddToken, KeptAlive, Deaf]  # fmt: skip


async def besiege(url: str, count: int, seconds: float) -> dict[str, dict]:
    """``count`` strangers, all kinds in turn, for ``seconds``."""
    where = urlsplit(url)
    table = {kind.__name__: {"connections": 0, "longest_s": 0.0, "refused": 0, "answers": Counter()}
             for kind in KINDS}  # fmt: skip
    until = asyncio.get_running_loop().time() + seconds

    async def come(kind: type[Stranger]) -> None:
        row = table[kind.__name__]
        while asyncio.get_running_loop().time() < until:
            stranger = kind(where.hostname or "", where.port or 80)
            try:
                held = await stranger.hold(until)
            except OSError:
                row["refused"] += 1
            else:
                row["connections"] += 1
                row["longest_s"] = max(row["longest_s"], round(held, 1))
                status = re.match(rb"HTTP/1.1 (\d+)", stranger.got)
                row["answers"][status[1].decode() if status else "none"] += 1
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(come(KINDS[n % len(KINDS)]) for n in range(count)))
    return table


@contextlib.asynccontextmanager
async def besieged(url: str, count: int, seconds: float) -> AsyncIterator[asyncio.Future[dict]]:
    """``besiege`` in a process of its own: a future of its table."""
    import sys
    from pathlib import Path

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.serve.strangers", url, "--count", str(count),
        "--seconds", str(seconds), cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield asyncio.ensure_future(_table(process))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _table(process: asyncio.subprocess.Process) -> dict[str, dict]:
    out, _ = await process.communicate()
    return json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    began = time.monotonic()
    table = asyncio.run(besiege(args.url, args.count, args.seconds))
    print(json.dumps(table))
    assert time.monotonic() - began < args.seconds + 30


if __name__ == "__main__":
    main()
