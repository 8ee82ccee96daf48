"""A small site behind the server's door, without a model: what the door does is the same.

    python -m tests.serve.house DESCRIPTORS

listens on a free port, which it prints, with so many file descriptors; ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import sys

from aiohttp import web

from vasa_jax.serve.access import Access
from vasa_jax.serve.answers import with_headers
from vasa_jax.serve.door import KEPT_ALIVE_S, Door, Limits, guest, meet, visitor_of
from vasa_jax.serve.listening import listen

QUICK = Limits(connections=40, per_address=4, head_s=0.6, life_s=1.2)


@contextlib.asynccontextmanager
async def house(limits=QUICK, *, tls=None, **access):
    """The door, its port, and what was noted at it."""
    rules, notes = Access(**({"host": "127.0.0.1"} | access)), []

    async def hello(request):
        return web.Response(text=request.remote)

    async def much(request):
        return web.Response(body=bytes(4_000_000))

    async def upload(request):
        raise web.HTTPForbidden

    async def stay(request):  # admitted: nothing but the client ends it
        with guest(visitor_of(request), 0.2):
            await asyncio.sleep(float(request.query["seconds"]))
        return web.Response(text="stayed")

    async def well(request):
        return web.json_response({"status": "ok", "sessions": 0, "max_sessions": 1})

    app = web.Application(middlewares=[with_headers, meet(rules)])
    app.router.add_get("/", hello)
    app.router.add_get("/example.png", much)
    app.router.add_get("/stay", stay)
    app.router.add_get("/healthz", well)
    app.router.add_post("/v2/portraits", upload)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=0.5, keepalive_timeout=KEPT_ALIVE_S,
        lingering_time=0.2,
    )  # fmt: skip
    await runner.setup()
    sockets = listen("127.0.0.1", 0)
    door = Door(sockets, runner.server, rules, limits, tls=tls, note=notes.append)
    door.open()
    try:
        yield door, sockets[0].getsockname()[1], notes
    finally:
        await door.close()
        await runner.cleanup()


def certificate(folder):
    """A self-signed certificate for localhost: its file and that of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, private = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private


def encrypting(folder):
    """A server's TLS with a certificate of its own, and that certificate's file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem, key = certificate(folder)
    context.load_cert_chain(pem, key)
    return context, pem


async def _main(descriptors: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    # More connections than there are descriptors: as if others had taken them.
    async with house(Limits(connections=1000, per_address=1000, head_s=2.0)) as (_, port, _):
        print(port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
