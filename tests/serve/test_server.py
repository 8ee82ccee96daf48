"""The server on a real port with a tiny release: limits, refusals, freed places."""

import asyncio
import io
import json
import socket as sockets
import threading
import types

import aiohttp
import numpy as np
import pytest
from PIL import Image

from tests.face.drawn_face import drawn_face
from tests.serve.serving import TOKEN, answer, emptied, errors_of, png, serving, start, talk
from vasa_jax.core.errors import UserError
from vasa_jax.generate.live.stream import LiveConfig, LiveStream
from vasa_jax.serve import fmp4, protocol
from vasa_jax.serve import session as sessions
from vasa_jax.serve.client import LiveClient
from vasa_jax.serve.figures import Figures
from vasa_jax.serve.server import ServeConfig, is_local

pytestmark = pytest.mark.usefixtures("broadcasting")


def test_a_session_from_upload_to_goodbye(release):
    async def run():
        async with serving(release) as (server, client, url):
            portrait = await client.portrait(png(drawn_face(220)), consent="drawn by a test")
            assert (await client.health())["max_sessions"] == 2
            streams = {"video": b"", "audio": b""}
            async with client.session(portrait=portrait, source="file") as session:
                ready = session.ready
                assert ready["synthetic"] and ready["latency_ms"]["declared"] == 120
                assert (ready["width"], ready["height"]) == (200, 200)
                await session.say(0.1 * np.random.default_rng(0).normal(size=16000))
                await session.ping()
                kinds, spoke = set(), 0
                async for message in session:
                    kinds.add(message.type)
                    kind = message.type.split("_")[0]
                    if kind in streams:
                        streams[kind] += message.payload
                    if message.type == "video":
                        header = message.header
                        assert {"motion", "render", "encode", "total"} <= set(header["ms"])
                        spoke += header["speaking"]
                        if header["index"] == 5:
                            await session.controls(gaze=[10, 0], pose=[5, 0, 0])
                            await session.interrupt()
                        if header["index"] >= 40:
                            break
            assert {"video_init", "audio_init", "pong", "interrupted", "stats"} <= kinds
            assert 2 <= spoke <= 16  # interrupted: far less than the second that was sent
            import av

            for kind, least in (("video", 40), ("audio", 70)):
                with av.open(io.BytesIO(streams[kind])) as container:
                    assert sum(1 for _ in container.decode(container.streams[0])) >= least
            assert await emptied(server)
            async with client.http.get(url + "/metrics") as response:
                text = await response.text()
            assert "vasa_sessions_total 1\n" in text and "vasa_interruptions_total 1\n" in text
            async with client.http.get(url + "/") as response:
                assert "Synthetic video" in await response.text()
                assert "frame-ancestors" in response.headers["Content-Security-Policy"]

    asyncio.run(run())


def test_jpeg_for_builders(release):
    async def run():
        async with serving(release) as (_, client, _):
            async with client.session(output="jpeg", frame="crop") as session:
                async for message in session:
                    if message.type == "video":
                        image = Image.open(io.BytesIO(message.payload))
                        assert image.size == (64, 64)
                        return

    asyncio.run(run())


def test_malformed_messages_are_answered_and_harm_nobody(release):
    async def run():
        async with serving(release) as (server, client, url):
            start_with = [json.dumps({"type": "start", "version": 2, "controls": c})
                          for c in ({"gaze": [90, 0]}, {"x": 1})]  # fmt: skip
            for first in ("", "{", "null", '{"type": "stop"}', '{"type": "start"}', b"\0\0",
                          *start_with):  # fmt: skip
                got = await answer(url, first)
                assert (got["type"], got["code"]) == ("error", "bad_request"), first
            got = await answer(url, json.dumps({"type": "start", "version": 2, "portrait": "?"}))
            assert got["code"] == "no_portrait"
            assert await emptied(server)
            async with client.session() as session:  # and within a session
                for text in ("", "[]", '{"type": "dance"}', '{"type": "controls", "gaze": "up"}',
                             '{"type": "controls", "emotion": {"hangry": 1}}',
                             '{"type": "ping", "t": "x"}', '{"type": "ping", "t": 1e999}',
                             '{"type": "ping", "t": %s}' % ("9" * 400)):  # fmt: skip
                    await session._socket.send_str(text)
                errors, after = 0, 0
                async for message in session:
                    errors += message.type == "error"
                    after += errors == 8 and message.type == "video"
                    if after == 3:
                        break
                assert errors == 8
            http, socket = await start(url)
            await socket.send_bytes(b"odd")  # three bytes are no 16-bit samples
            assert await errors_of(socket) == ["bad_request"]
            await http.close()
            assert await emptied(server)

    asyncio.run(run())


def test_places_are_freed_after_abrupt_disconnects(release):
    async def run():
        async with serving(release) as (server, client, url):
            for n in range(12):
                opened = [await start(url, source="file") for _ in range(2)]
                for _, socket in opened:
                    assert (await socket.receive()).json()["type"] == "ready"
                    await socket.send_bytes(np.ones(8000, "<i2").tobytes())
                if n == 0:
                    refused = await answer(url, json.dumps({"type": "start", "version": 2}))
                    assert refused["code"] == "busy"
                for http, socket in opened:  # the network goes away without a word
                    transport = socket._conn.transport
                    transport.abort()
                    await http.close()
                assert await emptied(server), n
            async with client.session() as session:
                assert session.ready["type"] == "ready"

    asyncio.run(run())


def test_a_client_that_is_gone_before_it_is_answered_frees_its_place(release):
    async def run():
        async with serving(release) as (server, client, url):
            for _ in range(2 * server.live.motion.places):
                http, socket = await start(url)  # and not a moment longer
                socket._conn.transport.abort()
                await http.close()
            assert await emptied(server)

    asyncio.run(run())


def test_a_session_that_cannot_be_greeted_frees_its_place(release, monkeypatch):
    async def gone(self):
        raise ConnectionResetError

    async def run():
        async with serving(release) as (server, client, url):
            monkeypatch.setattr(sessions.Session, "_send_ready", gone)
            # The last resort, which comes when the garbage collector does.
            monkeypatch.setattr(LiveStream, "__del__", lambda self: None)
            for _ in range(server.live.motion.places):
                http, socket = await start(url)
                await socket.receive()
                await http.close()
            assert await emptied(server)
            monkeypatch.undo()
            async with client.session() as session:
                assert session.ready["type"] == "ready"

    asyncio.run(run())


def test_threads_are_all_there_from_the_beginning(release):
    """A pool that grows when it happens to be busy makes a server grow for hours."""

    def names():
        return {t.name for t in threading.enumerate() if t.name.startswith("serve")}

    async def run():
        async with serving(release) as (server, client, url):
            before = names()
            assert len(before) == 2 * server.live.motion.places + 2
            async with client.session(frame="crop") as session:
                seen = 0
                async for message in session:
                    seen += message.type == "video"
                    if seen == 20:
                        break
            assert names() == before

    asyncio.run(run())
    assert not names()


def test_a_token_is_needed_where_there_is_one(release):
    async def run():
        async with serving(release, token=TOKEN) as (server, client, url):
            message = {"type": "start", "version": 2}
            for token in ({}, {"token": ""}, {"token": TOKEN + "x"}):
                got = await answer(url, json.dumps(message | token))
                assert got["code"] == "unauthorised"
            async with LiveClient(url, token="wrong") as stranger:
                with pytest.raises(UserError, match="token"):
                    await stranger.portrait(png(drawn_face(200)), consent="myself")
            async with client.session() as session:
                assert session.ready["version"] == 2

    asyncio.run(run())


def test_other_sites_and_other_names_are_refused(release):
    async def run():
        async with serving(release) as (_, client, url):
            path = url + protocol.SESSION_PATH
            for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "rebound.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await client.http.ws_connect(path, headers=headers)
                assert refused.value.status == 403
            async with client.http.ws_connect(path, headers={"Origin": url}):
                pass
            async with client.http.get(url + "/", headers={"Host": "rebound.example"}) as response:
                assert response.status == 403

    asyncio.run(run())


def test_uploads_are_bounded(release):
    async def run():
        async with serving(release, upload_s=0.4) as (server, client, url):
            with pytest.raises(UserError, match="no face"):
                await client.portrait(png(np.full((100, 100, 3), 90, np.uint8)), consent="myself")
            for data in (b"GIF89a....", b"\x89PNG\r\n\x1a\n" + b"x" * 100, b""):
                with pytest.raises(UserError, match="refused"):
                    await client.portrait(data, consent="me myself")
            with pytest.raises(UserError, match="12 MB"):
                await client.portrait(bytes(protocol.MAX_PORTRAIT_BYTES + 1), consent="myself")
            # One that never ends: the connection gets an answer, and the place is free.
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v2/portraits HTTP/1.1\r\nHost: localhost\r\n"
                         b"Consent: myself\r\nContent-Length: 100000\r\n\r\n\xff\xd8")  # fmt: skip
            got = await asyncio.wait_for(reader.read(4096), 5)
            assert b"400" in got.split(b"\r\n")[0] and b"too long" in got
            writer.close()
            assert server._waiting == 0

    asyncio.run(run())


def test_an_upload_is_told_what_will_look_wrong(release):
    async def run():
        async with serving(release) as (_, client, url):
            said = []
            for picture in (drawn_face(200), (drawn_face(200) * 0.05).astype(np.uint8)):
                async with client.http.post(
                    url + protocol.PORTRAIT_PATH, data=png(picture), headers={"Consent": "myself"}
                ) as response:
                    said.append((await response.json())["warnings"])
            return said

    nothing, (dark,) = asyncio.run(run())
    assert nothing == [] and dark["code"] == "dark" and "nearly black" in dark["message"]


def test_a_portrait_comes_with_consent_or_not_at_all(release, caplog):
    async def run():
        async with serving(release) as (server, client, _):
            for nothing in ("", "   ", "?!", "x" * 301):
                with pytest.raises(UserError, match="refused"):
                    await client.portrait(png(drawn_face(200)), consent=nothing)
            assert len(server._portraits) == 1 and (await client.health())["consent_needed"]
            name = await client.portrait(png(drawn_face(200)), consent="Zoë, by letter\n2026")
            with caplog.at_level("INFO", "vasa_jax.serve"):
                async with client.session(portrait=name, source="file") as session:
                    assert session.ready["consent"] == "Zoë, by letter 2026"
                    assert session.ready["mark"]["release"] == release.sha256[:5]
                assert await emptied(server)
        async with serving(release, ask_consent=False) as (_, client, _):
            assert await client.portrait(png(drawn_face(200)))

    asyncio.run(run())
    first, last = (json.loads(r.message) for r in caplog.records if r.name == "vasa_jax.serve")
    assert first["consent"] == "Zoë, by letter 2026" and first["portrait"]
    assert last["event"] == "session ends" and last["session"] == first["session"]


def test_what_a_client_records_carries_the_mark(release):
    async def run():
        from vasa_jax.provenance.examine import examine_pictures

        async with serving(release) as (_, client, _):
            async with client.session(output="jpeg", source="file") as session:
                await session.say(0.1 * np.random.default_rng(0).normal(size=16000))
                shown = []
                async for message in session:
                    if message.type == "video":
                        shown.append(np.asarray(Image.open(io.BytesIO(message.payload))))
                    if len(shown) == 20:
                        break
                verdict = examine_pictures(iter(shown))
                assert verdict.found and verdict.payload.to_json() == session.ready["mark"]

    asyncio.run(run())


def test_too_much_sound_ends_the_session(release):
    async def run():
        async with serving(release) as (server, client, url):
            for source in ("microphone", "file"):
                http, socket = await start(url, source=source)
                for _ in range(10):
                    await socket.send_bytes(np.zeros(16000, "<i2").tobytes())
                assert await errors_of(socket) == ["too_fast"]
                await http.close()
                assert await emptied(server)

    asyncio.run(run())


def test_a_client_that_does_not_read_is_let_go(release, monkeypatch):
    monkeypatch.setattr(sessions, "SEND_S", 0.3)
    # Pictures as large as it takes to fill a socket's buffers in no time.
    monkeypatch.setattr(fmp4.VideoTrack, "add", lambda *unused: bytes(4_000_000))

    async def run():
        async with serving(release) as (server, _, url):
            host, port = url.removeprefix("http://").split(":")
            raw = sockets.create_connection((host, int(port)))
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(raw, (
                f"GET {protocol.SESSION_PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())  # fmt: skip
            await loop.sock_recv(raw, 4096)
            text = json.dumps({"type": "start", "version": 2}).encode()
            masked = bytes([0x81, 0x80 | len(text)]) + bytes(4) + text
            await loop.sock_sendall(raw, masked)
            for _ in range(100):
                await asyncio.sleep(0.1)
                if server.figures.counts["sessions_ended_total", "too_slow"]:
                    break
            assert server.figures.counts["sessions_ended_total", "too_slow"] == 1
            assert await emptied(server)
            raw.close()

    asyncio.run(run())


def test_a_session_that_is_cancelled_just_when_it_has_sent_ends():
    """``asyncio.wait_for`` of Python 3.11 forgot that; the session then went on for ever."""

    async def run():
        sent = asyncio.get_running_loop().create_future()
        sends = iter([sent])
        never = asyncio.get_running_loop().create_future()
        session = object.__new__(sessions.Session)
        session._socket = types.SimpleNamespace(send_bytes=lambda message: next(sends, never))
        session._server = types.SimpleNamespace(figures=Figures())
        session._bytes = 0

        async def show():
            while True:
                await session._send(b"frame")

        showing = asyncio.ensure_future(show())
        for _ in range(3):
            await asyncio.sleep(0)
        sent.set_result(None)
        showing.cancel()
        await asyncio.wait([showing], timeout=2.0)
        assert showing.cancelled()

    asyncio.run(run())


def test_sessions_end_when_their_time_is_up(release):
    async def run():
        for changes, code in (({"session_s": 0.5}, "too_long"), ({"idle_s": 0.5}, "idle")):
            async with serving(release, **changes) as (server, client, _):
                with pytest.raises(UserError, match=code):
                    async with client.session() as session:
                        async for _ in session:
                            pass
                assert await emptied(server)

    asyncio.run(run())


def test_public_addresses_need_a_token():
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UserError, match="--token"):
            ServeConfig(host=host)
        with pytest.raises(UserError, match="--token"):
            ServeConfig(host=host, token="short")
        assert ServeConfig(host=host, token=TOKEN).token
    assert is_local("127.0.0.1") and is_local("::1") and is_local("localhost")
    with pytest.raises(UserError, match="port"):
        ServeConfig(port=70000)


@pytest.mark.slow
def test_four_sessions_at_once_make_nobody_late(release):
    """At the reduced size of the tiny release, at the sound's pace, pictures encoded and sent."""
    seconds = 15.0

    async def run():
        live = LiveConfig(steps=2, places=4)
        async with serving(release, live=live) as (server, client, _):
            sessions = await asyncio.gather(
                *(talk(client, seconds, seed=seed) for seed in range(4))
            )
            assert await emptied(server)
        for rows in sessions:
            settled = rows[25:]  # the first second starts threads
            assert len(settled) > (seconds - 2) * 25
            assert all(row["drawn"] for row in settled)
            assert max(row["ms"]["shared"] for row in settled) > 1  # one batched step for all

    asyncio.run(run())
