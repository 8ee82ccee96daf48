"""The live server over a long time; see tools/soak_page.

A server runs in a process of its own. Each session speaks to it as a microphone does, 20 ms of
sound every 20 ms. What is looked at:

* memory: resident memory of the server at the end of each minute, minute 5 against the last;
* clock: the time stamps of both tracks, against the number of the frame and against the samples
  that came before; both tracks are on one clock, so a player keeps them together;
* lips: the lag of the opening of the lips behind the loudness of the sound, both decoded from what
  the client received, near the beginning and at the end. A lag of the lips of its own (mouths open
  before they are heard) is in both, so their difference is what the stream has drifted;
* pace: frames that were not drawn, and how far the last frame is behind the clock;
* breaks: clients that vanish before, in and after a session's start, half an upload, nonsense,
  a wrong token. Afterwards no place may be taken, and a session must run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import io
import json
import os
import re
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import card as cards
import live_server
import numpy as np

from vasa_jax.runtime.machine import resident_mb, use_cores

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000
WINDOW_S = 20.0  # of what is recorded to look at the lips
FPS = 25
TOKEN = "a token for the length of a soak"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/soak_page", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=1, help="at once")
    parser.add_argument("--breaks", type=int, default=200, help="clients that break off")
    parser.add_argument("--cores", type=int, default=0, help="for everything; 0 leaves all")
    parser.add_argument("--release", default="lite")
    parser.add_argument("--speech", help="default: the bundled one")
    parser.add_argument("--frame", choices=("full", "crop"), default="crop")
    parser.add_argument("--name", default="soak_page", help="first word of the card's file name")
    parser.add_argument("--out", default=str(ROOT / "experiments" / "benchmarks"), metavar="DIR")
    args = parser.parse_args()
    use_cores(args.cores)
    options = ["--release", args.release, "--max-sessions", str(args.sessions), "--token", TOKEN,
               "--session-minutes", str(int(args.minutes) + 5)]  # fmt: skip
    with live_server.running(*options) as (url, server):
        card = asyncio.run(measure(url, server.pid, args))
    text = describe(card)
    print(text)
    cards.write(args.out, f"{args.name}_{card['machine']['short']}_{card['date']}", text, card)
    return 0


def open_files(pid: int) -> int | None:
    """Descriptors that a process holds; None where the system does not tell."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


class Recorder:
    """Both tracks of a stretch of the session, from a picture that needs no other on."""

    def __init__(self, begin_s: float):
        self._begin = round(begin_s) * FPS  # every FPS-th picture is a key
        self._end = self._begin + int(WINDOW_S * FPS)
        self._parts: dict[str, list[bytes]] = {"video": [], "audio": []}

    def take(self, message: Any) -> None:
        kind = message.type
        if kind in ("video_init", "audio_init"):
            self._parts[kind[:5]].append(message.payload)
        elif kind in self._parts and self._begin <= message.header["index"] < self._end:
            self._parts[kind].append(message.payload)

    def lag(self) -> tuple[float, float]:
        """Lag of the lips in ms behind the loudness (negative: ahead), and the correlation."""
        import av

        from vasa_jax.face.find.finder import FaceTracker
        from vasa_jax.metrics.sync import lag_correlation, lip_aperture

        tracker, times, points = FaceTracker(), [], []
        with av.open(io.BytesIO(b"".join(self._parts["video"]))) as container:
            for frame in container.decode(video=0):
                face = tracker.track(frame.to_ndarray(format="rgb24"))
                times.append(float(frame.time))
                points.append(np.full((478, 3), np.nan) if face is None else face.landmarks)
        sound, heard = [], []
        with av.open(io.BytesIO(b"".join(self._parts["audio"]))) as container:
            for piece in container.decode(audio=0):
                wave = piece.to_ndarray().reshape(-1)
                sound.append(wave)
                heard.append(float(piece.time) + np.arange(len(wave)) / piece.sample_rate)
        wave, at = np.concatenate(sound), np.concatenate(heard)
        # Loudness around the middle of each picture's time, on the players' clock.
        power = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
        middle = np.array(times) + 0.5 / FPS
        low, high = (np.searchsorted(at, middle + d / FPS) for d in (-1.0, 1.0))
        loud = np.sqrt((power[high] - power[low]) / np.maximum(high - low, 1))
        found = lag_correlation(loud, lip_aperture(np.stack(points)))
        k = int(np.clip(np.argmax(found), 1, len(found) - 2))
        a, b, c = found[k - 1 : k + 2]
        peak = k + (0.5 * (a - c) / (a - 2 * b + c) if a + c < 2 * b else 0.0)
        return float((peak - len(found) // 2) * 1000 / FPS), float(b)


class TrackClock:
    """How far the time stamps of one track are from where its samples so far put them."""

    def __init__(self) -> None:
        self.apart_s = 0.0
        self._next: float | None = None

    def take(self, payload: bytes) -> float:
        """Seconds of a segment's first sample (the boxes ``tfdt`` and ``trun``)."""
        at, table = payload.index(b"tfdt"), payload.index(b"trun")
        start = struct.unpack(">Q", payload[at + 8 : at + 16])[0]
        count = struct.unpack(">I", payload[table + 8 : table + 12])[0]
        rows = struct.iter_unpack(">III", payload[table + 16 : table + 16 + 12 * count])
        if self._next is not None:
            self.apart_s = max(self.apart_s, abs(start - self._next) / 48_000)
        self._next = start + sum(ticks for ticks, _, _ in rows)
        return start / 48_000


async def talk(client: Any, speech: np.ndarray, frame: str, seconds: float) -> dict[str, Any]:
    """One session; what its client saw."""
    begin, end = min(30.0, seconds / 4), seconds - WINDOW_S - 3
    recorders = [Recorder(begin), Recorder(max(begin, end))]
    counts: dict[str, int] = {}
    clocks = {"video": TrackClock(), "audio": TrackClock()}
    off, late, totals = 0.0, 0.0, []
    async with client.session(source="microphone", frame=frame) as session:
        began = time.monotonic()
        talking = asyncio.create_task(live_server.speak(session, speech, seconds))
        async for message in session:
            for recorder in recorders:
                recorder.take(message)
            if message.type in clocks:
                at = clocks[message.type].take(message.payload)
            if message.type == "video":
                totals.append(message.header["ms"]["total"])
                late = time.monotonic() - began - message.header["time"]
                start = message.header["index"] / FPS + session.ready["priming_s"]
                off = max(off, abs(at - start))
            if message.type == "stats":
                counts = message.header["counts"]
            if talking.done():
                break
        await talking
    lags = [recorder.lag() for recorder in recorders]
    return {
        "frames": counts.get("frames", 0), "counts": counts,
        "total_ms": {f"p{q}": float(np.percentile(totals, q)) for q in (50, 95, 99)},
        "stamps_off_ms": max(off, *(c.apart_s for c in clocks.values())) * 1e3,
        "last_frame_behind_clock_ms": late * 1e3,
        "lips_lag_ms": [lag for lag, _ in lags], "lips_correlation": [r for _, r in lags],
    }  # fmt: skip


async def watch_memory(pid: int, minutes: float) -> list[float]:
    """MB at the end of each minute (of each sixth of it in runs below five)."""
    step = 60.0 if minutes >= 5 else minutes * 10.0
    found, began = [], time.monotonic()
    while len(found) < int(minutes * 60 / step):
        await asyncio.sleep(max(0.0, began + (len(found) + 1) * step - time.monotonic()))
        found.append(round(resident_mb(pid), 1))
        print(f"{(len(found)) * step / 60:5.1f} min {found[-1]:7.1f} MB", flush=True)
    return found


class Breaker:
    """Clients that misbehave, each in one way; what the server answered is counted."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._rng = np.random.default_rng(0)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    async def _socket(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A WebSocket, by hand: a library would say goodbye."""
        reader, writer = await self._open()
        writer.write(
            f"GET /v2/session HTTP/1.1\r\nHost: localhost:{self._port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    def _frame(self, data: bytes, *, text: bool) -> bytes:
        """One masked WebSocket frame (RFC 6455 section 5.2)."""
        mask = self._rng.bytes(4)
        n = len(data)
        size = struct.pack(">B", 0x80 | n) if n < 126 else struct.pack(">BH", 0x80 | 126, n)
        masked = np.frombuffer(data, np.uint8) ^ np.resize(np.frombuffer(mask, np.uint8), n)
        return bytes([0x81 if text else 0x82]) + size + mask + masked.tobytes()

    def _start(self, token: str = TOKEN) -> bytes:
        start = {"type": "start", "version": 2, "token": token, "source": "file"}
        return self._frame(json.dumps(start).encode(), text=True)

    async def _answer(self, reader: asyncio.StreamReader, seconds: float = 5.0) -> str:
        """The first answer's code; "closed" or "silent" where there is none."""
        with contextlib.suppress(TimeoutError):
            data = await asyncio.wait_for(reader.read(2000), seconds)
            said = re.search(rb'"code": ?"(\w+)"', data) or re.search(rb'"type": ?"(\w+)"', data)
            return said[1].decode() if said else "bytes" if data else "closed"
        return "silent"

    async def before_start(self) -> str:
        _, writer = await self._socket()
        writer.transport.abort()
        return "gone"

    async def after_start(self) -> str:
        reader, writer = await self._socket()
        writer.write(self._start())
        answer = await self._answer(reader)
        writer.transport.abort()
        return answer

    async def while_speaking(self) -> str:
        reader, writer = await self._socket()
        writer.write(self._start())
        answer = await self._answer(reader)
        if answer == "ready":
            for _ in range(int(self._rng.integers(1, 5))):
                writer.write(self._frame(bytes(6400), text=False))
                await asyncio.sleep(0.05)
        writer.transport.abort()
        return answer

    async def half_an_upload(self) -> str:
        reader, writer = await self._open()
        writer.write(
            f"POST /v2/portraits HTTP/1.1\r\nHost: localhost:{self._port}\r\nConsent: me\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: 500000\r\n\r\n".encode()
            + self._rng.bytes(int(self._rng.integers(1, 100_000)))
        )
        await writer.drain()
        writer.transport.abort()
        return "gone"

    async def nonsense(self) -> str:
        reader, writer = await self._socket()
        writer.write(self._start())
        answer = await self._answer(reader)
        if answer == "ready":
            writer.write(self._frame(self._rng.bytes(301), text=False))
            for text in (b"{", b'{"type": "controls", "gaze": "up"}', self._rng.bytes(40)):
                writer.write(self._frame(text, text=True))
            await asyncio.sleep(0.1)
        writer.transport.abort()
        return answer

    async def wrong_token(self) -> str:
        reader, writer = await self._socket()
        writer.write(self._start("not the token"))
        answer = await self._answer(reader)
        writer.transport.abort()
        return answer

    async def no_http(self) -> str:
        reader, writer = await self._open()
        writer.write(self._rng.bytes(400) + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(100), 5)
        writer.transport.abort()
        return "gone"

    async def run(self, count: int) -> dict[str, dict[str, int]]:
        """``count`` clients, all ways in turn; what each way was answered."""
        ways = [self.before_start, self.after_start, self.while_speaking, self.half_an_upload,
                self.nonsense, self.wrong_token, self.no_http]  # fmt: skip
        table: dict[str, Counter[str]] = {way.__name__: Counter() for way in ways}
        for n in range(count):
            way = ways[n % len(ways)]
            try:
                answer = await asyncio.wait_for(way(), 60)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                answer = type(error).__name__
            table[way.__name__][answer] += 1
            if n % 50 == 49:
                print(f"{n + 1} of {count} clients have broken off", flush=True)
        return {name: dict(found) for name, found in table.items()}


async def emptied(client: Any, seconds: float = 30.0) -> int:
    """Sessions that are left once all had time to end."""
    left = -1
    for _ in range(int(seconds / 0.5)):
        left = (await client.health())["sessions"]
        if not left:
            break
        await asyncio.sleep(0.5)
    return left


async def measure(url: str, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    """Everything the card says."""
    import vasa_jax
    from vasa_jax.io.audio import read_audio
    from vasa_jax.runtime.machine import machine, versions
    from vasa_jax.serve.client import LiveClient

    speech = read_audio(args.speech or vasa_jax.example_speech())
    speech = np.concatenate([speech, np.zeros(RATE, np.float32)])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    async with LiveClient(url, token=TOKEN) as client:
        memory = asyncio.create_task(watch_memory(pid, args.minutes))
        sessions = await asyncio.gather(
            *(
                talk(client, np.roll(speech, i * RATE), args.frame, args.minutes * 60)
                for i in range(args.sessions)
            )
        )
        resident = await memory
        left = await emptied(client)
        before = open_files(pid), resident_mb(pid)
        answers = await Breaker(url).run(args.breaks)
        left_after = await emptied(client)
        after = open_files(pid), resident_mb(pid)
        again = None
        if args.breaks:
            again = await talk(client, speech, args.frame, min(args.minutes * 60, 45.0))
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/soak_page", *sys.argv[1:]]),
        "commit": cards.commit(), "machine": machine(), "versions": versions(),
        "load_before": load, "sessions": sessions, "memory_mb": resident,
        "places_taken_after": left,
        "breaks": {
            "count": args.breaks, "answers": answers, "places_taken_after": left_after,
            "open_files": [before[0], after[0]],
            "memory_mb": [round(before[1], 1), round(after[1], 1)], "session_after": again,
        },
    }  # fmt: skip


def describe(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    memory, breaks, machine = card["memory_mb"], card["breaks"], card["machine"]
    fifth = memory[min(4, len(memory) - 1)]
    lines = [
        "# The live server over a long time", "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}.", "",
        f"{machine['cores']} cores of {machine['cpu']} ({machine['device']}), load average before: "
        f"{card['load_before']}; the client shares them.", "",
        f"Resident memory of the server: {fifth:.1f} MB at minute {min(5, len(memory))}, "
        f"{memory[-1]:.1f} MB at the end ({(memory[-1] / fifth - 1) * 100:+.2f} %); all: "
        f"{', '.join(f'{m:.0f}' for m in memory)}.", "",
        "| session | frames | not drawn | p50, p95, p99 in ms | last frame behind the clock, ms | "
        "time stamps off at most, ms | lips behind loudness, begin and end, ms | correlation |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    rows = list(enumerate(card["sessions"], 1))
    if breaks["session_after"]:
        rows.append(("after the breaks", breaks["session_after"]))
    for name, s in rows:
        c, ms = s["counts"], s["total_ms"]
        lines.append(
            f"| {name} | {s['frames']} | {s['frames'] - c.get('drawn', 0)} | "
            f"{ms['p50']:.0f}, {ms['p95']:.0f}, {ms['p99']:.0f} | "
            f"{s['last_frame_behind_clock_ms']:.0f} | {s['stamps_off_ms']:.1f} | "
            f"{s['lips_lag_ms'][0]:.0f}, {s['lips_lag_ms'][1]:.0f} | "
            f"{s['lips_correlation'][0]:.2f}, {s['lips_correlation'][1]:.2f} |"
        )
    lines += [
        "", f"{breaks['count']} clients that broke off; what each kind was answered:", "",
        *(f"- {name}: {found}" for name, found in breaks["answers"].items()), "",
        f"Places taken after the sessions {card['places_taken_after']}, after the breaks "
        f"{breaks['places_taken_after']}; open files {breaks['open_files'][0]} and "
        f"{breaks['open_files'][1]}; memory {breaks['memory_mb'][0]} and "
        f"{breaks['memory_mb'][1]} MB.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
