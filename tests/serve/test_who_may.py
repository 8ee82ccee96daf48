"""Tokens, names and proxies, with a server of the tiny release."""

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import time

import aiohttp
import pytest

from tests.face.drawn_face import drawn_face
from tests.serve.house import certificate
from tests.serve.serving import TOKEN, answer, emptied, errors_of, png, serving
from vasa_jax.serve import protocol
from vasa_jax.serve.client import LiveClient
from vasa_jax.serve.listening import listen

pytestmark = pytest.mark.usefixtures("broadcasting")
HEARTBEAT_S, IDLE_S = 1.0, 4.0  # of a session and of a proxy; 15 and 60 elsewhere


def test_a_token_comes_in_the_head_or_in_the_first_message(release):
    async def run():
        async with serving(release, token=TOKEN, start_s=1.0) as (server, client, url):
            path, http = url + protocol.SESSION_PATH, client.http
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            for ways in ({"headers": bearer}, {"params": {"token": TOKEN}}):
                async with http.ws_connect(path, **ways) as socket:
                    await socket.send_json({"type": "start", "version": 2})
                    assert (await socket.receive()).json()["type"] == "ready"
                async with http.ws_connect(path, **ways) as socket:  # and says no more
                    assert await errors_of(socket) == ["bad_request"]
            for ways in ({"headers": {"Authorization": "Bearer wrong"}}, {"params": {"token": ""}}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(path, **ways)
                assert refused.value.status == 403
            assert await emptied(server)

    asyncio.run(run())


def test_what_is_no_text_is_a_wrong_token_and_no_failure(release, caplog):
    async def run():
        async with serving(release, token=TOKEN) as (server, client, url):
            got = await answer(url, '{"type": "start", "version": 2, "token": "\\ud800"}')
            assert got["code"] == "unauthorised"
            host, port = url.removeprefix("http://").split(":")
            for request in ("POST /v2/portraits", "POST /v2/session", "GET /metrics"):
                for line in (b"Authorization: Bearer \xff\xfe", b"Authorization: \xff", b"X: y"):
                    reader, writer = await asyncio.open_connection(host, int(port))
                    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                    writer.write(head.encode() + b"Consent: \xff\xfe\r\n" + line + b"\r\n\r\n")
                    said = await asyncio.wait_for(reader.read(4096), 5)
                    assert said.startswith(b"HTTP/1.1 403 ") and b"token" in said, (line, said)
                    writer.close()
            large = {"pose": [10**400, 0, 0]}  # a whole number beyond all floats
            first = {"type": "start", "version": 2, "token": TOKEN, "controls": large}
            assert (await answer(url, json.dumps(first)))["code"] == "bad_request"

    asyncio.run(run())
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_figures_are_for_those_who_have_the_token(release):
    async def run():
        async with serving(release, token=TOKEN) as (_, client, url):
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            for ways, status in (({}, 403), ({"params": {"token": "wrong"}}, 403),
                                 ({"params": {"token": TOKEN}}, 200),
                                 ({"headers": bearer}, 200)):  # fmt: skip
                async with client.http.get(url + "/metrics", **ways) as response:
                    assert response.status == status
                    assert ("vasa_sessions 0" in await response.text()) == (status == 200)
            assert (await client.health())["token_needed"]

    asyncio.run(run())


def test_sockets_that_say_nothing_take_no_place(release):
    async def run():
        async with serving(release, token=TOKEN, start_s=2.0) as (server, client, url):
            path = url + protocol.SESSION_PATH
            mute = [await client.http.ws_connect(path) for _ in range(40)]
            async with client.session() as session:
                assert session.ready["version"] == 2
            for socket in mute:
                assert await errors_of(socket) == ["bad_request"]
            assert await emptied(server)

    asyncio.run(run())


def test_a_page_can_ask_why_it_may_not_begin(release):
    async def run():
        async with serving(release, token=TOKEN) as (server, client, url):

            async def why(token, **headers):
                headers["Authorization"] = f"Bearer {token}"
                async with client.http.post(url + protocol.SESSION_PATH, headers=headers) as said:
                    return said.status, (await said.json()).get("message", "")

            assert (await why(TOKEN)) == (200, "")
            assert (await why("wrong")) == (403, "the token is wrong")
            status, message = await why(TOKEN, Origin="https://me.example")
            assert status == 403 and "--public-url https://me.example/" in message
            taken = [server.live.motion.open(0) for _ in range(server.live.motion.places)]
            status, message = await why(TOKEN)
            assert status == 503 and "places are taken" in message
            for place in taken:
                server.live.motion.close(place)

    asyncio.run(run())


def test_a_proxy_may_keep_its_folder_or_cut_it_off(release):
    async def run():
        async with serving(release, public_url="https://me.example/talk") as (_, client, url):
            names = {"Host": "me.example", "Origin": "https://me.example"}
            for base in ("/", "/talk/"):
                for name in ("", "page/page.js", "page/recorder.js", "example.png", "healthz"):
                    async with client.http.get(url + base + name, headers=names) as response:
                        assert response.status == 200, base + name
                        assert "frame-ancestors" in response.headers["Content-Security-Policy"]
                async with client.http.ws_connect(
                    url + base + "v2/session", headers=names
                ) as socket:
                    await socket.send_json({"type": "start", "version": 2})
                    assert (await socket.receive()).json()["type"] == "ready"
            async with client.http.get(url + "/talk", headers=names) as response:
                assert str(response.url) == url + "/talk/" and response.status == 200
            async with client.http.get(url + "/page/page.js") as first:
                tag = {"If-None-Match": first.headers["ETag"]}
            async with client.http.get(url + "/page/page.js", headers=tag) as again:
                assert again.status == 304

    asyncio.run(run())


@contextlib.asynccontextmanager
async def impatient_proxy(url):
    """The URL of a proxy that ends a connection when either side says nothing for ``IDLE_S``."""
    host, port = url.removeprefix("http://").split(":")

    async def pump(reader, writer):
        with contextlib.suppress(OSError):  # TimeoutError is one
            while True:
                async with asyncio.timeout(IDLE_S):
                    data = await reader.read(65536)
                if not data:
                    break
                writer.write(data)
        writer.transport.abort()

    async def meet(reader, writer):
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    proxy = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with proxy:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


async def lasts(http, path, seconds, **ways):
    """Seconds that a session lasts whose client says nothing after its start."""
    async with http.ws_connect(path, **ways) as socket:
        await socket.send_json({"type": "start", "version": 2, "token": TOKEN, "frame": "crop"})
        assert (await socket.receive()).json()["type"] == "ready"
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            message = await socket.receive()
            if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                break
        return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat_s", [HEARTBEAT_S, 60.0])
def test_a_proxys_idle_timeout_ends_no_session(release, heartbeat_s):
    async def run():
        async with serving(release, token=TOKEN, heartbeat_s=heartbeat_s) as (_, client, url):
            async with impatient_proxy(url) as proxied:
                seconds = await lasts(client.http, proxied + protocol.SESSION_PATH, 2 * IDLE_S)
                # Without heartbeats this proxy does end it: the test would see it.
                assert (seconds >= 2 * IDLE_S) == (heartbeat_s < IDLE_S)

    asyncio.run(run())


NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    client_max_body_size 12m;
    location /talk/ {{ proxy_pass http://{server}/; }}
    location /hasty/ {{
      proxy_pass http://{server}/;
      proxy_read_timeout {idle}s; proxy_send_timeout {idle}s;
    }}
    location /kept/ {{
      proxy_pass http://{server};
      proxy_set_header Host me.example;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder, server):
    """nginx with TLS before a server: its URL, and what trusts it."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("needs nginx")
    pem, key = certificate(folder)
    (free,) = listen("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    text = NGINX.format(port=port, certificate=pem, key=key, server=server, idle=int(IDLE_S))
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=pem)
    finally:
        process.terminate()
        process.communicate()


def test_a_session_goes_through_nginx_with_tls_and_a_folder(release, tmp_path):
    public = "https://me.example/kept/"

    async def run():
        async with serving(release, token=TOKEN, public_url=public, heartbeat_s=HEARTBEAT_S) as (
            server,
            _,
            url,
        ):
            with nginx(tmp_path, url.removeprefix("http://")) as (front, trust):
                connector = aiohttp.TCPConnector(ssl=trust)
                async with aiohttp.ClientSession(connector=connector) as http:
                    for folder in ("/talk/", "/kept/"):  # cut off by nginx, and not
                        for _ in range(100):
                            with contextlib.suppress(aiohttp.ClientConnectionError):
                                async with http.get(front + folder) as response:
                                    assert response.status == 200
                                    assert 'src="page/page.js"' in await response.text()
                                    break
                            await asyncio.sleep(0.1)  # until nginx listens
                        async with http.get(front + folder + "page/page.js") as response:
                            assert response.status == 200
                        client = LiveClient(front + folder, token=TOKEN)
                        client._http = http
                        name = await client.portrait(png(drawn_face(200)), consent="drawn here")
                        async with client.session(portrait=name) as session:
                            assert session.ready["consent"] == "drawn here"
                    path, names = front + "/hasty/v2/session", {"Origin": "https://me.example"}
                    assert await lasts(http, path, IDLE_S + 2, headers=names) >= IDLE_S + 2
                    with pytest.raises(aiohttp.WSServerHandshakeError):
                        await http.ws_connect(path, headers={"Origin": "https://evil.example"})
                    # Whom nginx speaks for: the stranger, not nginx.
                    mute = await http.ws_connect(path)
                    assert await errors_of(mute) == ["bad_request"]
                assert await emptied(server)

    asyncio.run(run())
