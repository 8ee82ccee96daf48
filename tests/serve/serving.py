"""A live server of the tiny release inside a test, on a real port."""

import asyncio
import contextlib
import dataclasses
import io

import aiohttp
import numpy as np
from PIL import Image

from tests.face.drawn_face import drawn_face
from tools import live_server
from vasa_jax.generate.live.stream import LiveConfig
from vasa_jax.serve import protocol
from vasa_jax.serve.client import LiveClient
from vasa_jax.serve.listening import listen
from vasa_jax.serve.server import LiveServer, ServeConfig

CFG = ServeConfig(port=0, max_side=200, live=LiveConfig(steps=1, places=2, buffer_s=4.0))
TOKEN = "a-token-of-some-length"


@contextlib.asynccontextmanager
async def serving(release, **changes):
    server = LiveServer(dataclasses.replace(CFG, **changes), release)
    server.prepare(drawn_face(200))
    sockets = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with server.open(sockets), LiveClient(url, token=server.cfg.token) as client:
        yield server, client, url


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


async def emptied(server, seconds=5.0):
    for _ in range(int(seconds / 0.05)):
        if server.live.motion.taken == 0 and not server._sockets:
            return True
        await asyncio.sleep(0.05)
    return False


async def start(url, **entries):
    http = aiohttp.ClientSession()
    socket = await http.ws_connect(url + protocol.SESSION_PATH)
    await socket.send_json({"type": "start", "version": 2} | entries)
    return http, socket


async def errors_of(socket):
    """Codes of all errors until the end."""
    texts = [m.json() async for m in socket if m.type == aiohttp.WSMsgType.TEXT]
    return [text["code"] for text in texts if text["type"] == "error"]


async def answer(url, message):
    """The first answer to a first message."""
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(url + protocol.SESSION_PATH) as socket:
            send = socket.send_bytes if isinstance(message, bytes) else socket.send_str
            await send(message)
            return (await socket.receive()).json()


async def talk(client, seconds, *, seed=0):
    """The headers of all pictures that somebody gets who speaks for so long into a microphone."""
    speech = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds))
    rows = []
    async with client.session(source="microphone", frame="crop", seed=seed) as session:
        talking = asyncio.create_task(live_server.speak(session, speech, seconds))
        async for message in session:
            if message.type == "video":
                rows.append(message.header)
            if talking.done():
                break
        await talking
    return rows
