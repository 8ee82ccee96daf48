"""``vasa-jax serve``: the live page and its protocol."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

from vasa_jax.core.errors import UserError
from vasa_jax.serve.health import default_port

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from socket import socket
    from ssl import SSLContext

    from vasa_jax.serve.config import ServeConfig

EPILOG = """\
The page is at http://HOST:PORT/ ; with a token, at http://HOST:PORT/#token=TOKEN . Browsers give a
microphone only to localhost and to https: on other addresses use --certificate and --key, or a
proxy that speaks https. The protocol for programs is in vasa_jax/serve/PROTOCOL.md.

behind a proxy: --public-url says what people open; the proxy may keep or cut off its path, and has
to pass WebSockets on. nginx:
  location /talk/ {
      proxy_pass http://127.0.0.1:8765/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      client_max_body_size 12m;
  }
A server that everybody can reach through a proxy needs --token, although it listens on this machine
alone.

on a GPU memory is taken as it is needed, not three quarters of it at once, unless one of JAX's
variables (XLA_PYTHON_CLIENT_PREALLOCATE, XLA_CLIENT_MEM_FRACTION, ...) says otherwise.

examples:
  vasa-jax serve --open
  vasa-jax serve --host 0.0.0.0 --token SECRET --certificate cert.pem --key key.pem
  vasa-jax serve --token SECRET --public-url https://me.example/talk/
"""
# JAX's own; where one of them is set somebody has chosen how a GPU's memory is taken.
GPU_MEMORY = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION",
              "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_ALLOCATOR")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (this machine alone); 0.0.0.0: all of IPv4, :: of IPv6 as well",
    )
    parser.add_argument(
        "--port",
        default=default_port(),
        type=int,
        help="0 takes a free one ($VASA_PORT, 8765)",
    )
    parser.add_argument("--open", action="store_true", help="the page in a browser, when ready")
    parser.add_argument("--release", default="lite", metavar="NAME|DIR", help="weights (lite)")
    parser.add_argument(
        "--token",
        default=os.environ.get("VASA_TOKEN", ""),
        help="what clients must bring; needed on addresses that others can reach ($VASA_TOKEN)",
    )
    parser.add_argument(
        "--max-sessions", type=int, metavar="N", help="at a time (two cores each; 8 on a GPU)"
    )
    parser.add_argument("--session-minutes", type=float, default=30.0, metavar="M")
    parser.add_argument("--hop", type=int, default=2, help="frames made at once (2)")
    parser.add_argument("--ahead", type=int, default=1, help="frames of sound waited for (1)")
    parser.add_argument(
        "--steps", type=int, help="of the full model's sampler (the release's quickest way)"
    )
    parser.add_argument(
        "--public-url",
        default="",
        metavar="URL",
        help="what people open where a proxy passes on to this server, as in https://me.example/",
    )
    parser.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy on another machine whose X-Forwarded-For is true (or a network of them)",
    )
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="other site that may connect"
    )
    parser.add_argument(
        "--no-consent",
        action="store_true",
        help="do not ask who allowed a portrait; you answer for all that are sent",
    )
    parser.add_argument("--log", metavar="FILE", help="add sessions and consents to it (stderr)")
    parser.add_argument("--certificate", metavar="PEM", help="for https, with --key")
    parser.add_argument("--key", metavar="PEM")


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted; what can be refused is refused before the weights load."""
    for name, low, high in (("hop", 1, 25), ("ahead", 0, 25), ("steps", 1, 1000)):
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name}: {value} is outside {low} to {high}")
    if args.max_sessions is not None and not 1 <= args.max_sessions <= 256:
        raise UserError(f"--max-sessions: {args.max_sessions} is outside 1 to 256")
    if not 0 < args.session_minutes <= 1440:
        raise UserError(f"--session-minutes: {args.session_minutes:g} is outside 0 to 1440")
    if not 0 <= args.port < 65536:
        raise UserError(f"--port: {args.port} is outside 0 to 65535")
    if bool(args.certificate) != bool(args.key):
        raise UserError("--certificate and --key belong together")

    import aiohttp  # noqa: F401  (said before anything else when it is missing)

    from vasa_jax.serve.access import Access
    from vasa_jax.serve.listening import listen

    args.token = args.token.strip()  # of a file's last line
    Access(
        host=args.host, token=args.token, origins=args.origin, public_url=args.public_url,
        proxies=args.proxy,
    )  # fmt: skip
    if args.public_url and not args.token:
        print(f"without --token all who reach {args.public_url} may use it", file=sys.stderr)
    tls = _tls(args)
    sockets = listen(args.host, args.port)
    try:
        _log_to(args.log)
        return _load_and_serve(args, sockets, tls)
    finally:
        for listener in sockets:
            listener.close()


def _load_and_serve(
    args: argparse.Namespace, sockets: Sequence[socket], tls: SSLContext | None
) -> int:
    """From here on it takes seconds; all that the user could have got wrong is known."""
    print(f"loading {args.release}", file=sys.stderr, flush=True)
    take_memory_as_needed(os.environ)

    from vasa_jax.runtime import compile_cache
    from vasa_jax.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    compile_cache.enable()

    from vasa_jax.generate.live.engine import LiveConfig
    from vasa_jax.serve.config import ServeConfig

    live = LiveConfig(
        hop=args.hop, ahead=args.ahead, steps=args.steps, places=args.max_sessions or _places()
    )
    cfg = ServeConfig(
        host=args.host, port=args.port, token=args.token, origins=tuple(args.origin),
        public_url=args.public_url, proxies=tuple(args.proxy),
        session_s=args.session_minutes * 60, live=live, ask_consent=not args.no_consent,
    )  # fmt: skip
    return asyncio.run(_serve(cfg, args, sockets, tls))


def take_memory_as_needed(environ: MutableMapping[str, str]) -> None:
    """A server shares its GPU; JAX would take three quarters of the memory when it starts."""
    if not any(environ.get(name) for name in GPU_MEMORY):
        environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _log_to(path: str | None) -> None:
    """Sends the sessions' log, one JSON object a line after the time, to a file or to stderr."""
    import logging

    from vasa_jax.serve.sparing import Sparing

    try:
        handler = logging.FileHandler(path) if path else logging.StreamHandler()
    except OSError as error:
        raise UserError(f"--log: can't write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("vasa_jax.serve")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    # What the libraries complain of is often a stranger's doing, as often as the stranger likes.
    others = logging.StreamHandler()
    others.setLevel(logging.WARNING)
    others.setFormatter(handler.formatter)
    others.addFilter(Sparing())
    for name in ("aiohttp", "asyncio", "aiortc", "aioice"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [others], False


async def _serve(
    cfg: ServeConfig, args: argparse.Namespace, sockets: Sequence[socket], tls: SSLContext | None
) -> int:
    from vasa_jax.serve.listening import families
    from vasa_jax.serve.server import LiveServer

    # Threads that draw wait for the loop's at most so long when strangers keep it busy; Python's
    # own 5 ms, a dozen times a hop, would make frames late.
    sys.setswitchinterval(0.0005)
    server = LiveServer(cfg, args.release)
    server.prepare()
    try:
        async with server.open(sockets, tls=tls):
            here = page_url(cfg.host, sockets[0].getsockname()[1], encrypted=tls is not None)
            suffix = "#token=..." if cfg.token else ""
            print(
                f"{here}{suffix}  {families(sockets)}, sessions: {cfg.live.places}, "
                f"latency {server.live.latency_ms:.0f} ms and compute; Ctrl-C stops",
                flush=True,
            )
            if cfg.public_url:
                print(f"{cfg.public_url.rstrip('/')}/{suffix}  by the proxy", flush=True)
            if args.open:
                url = f"{cfg.public_url.rstrip('/')}/" if cfg.public_url else here
                show(f"{url}#token={quote(cfg.token, safe='')}" if cfg.token else url)
            await asyncio.Event().wait()
    finally:
        server.live.close()
    return 0


def page_url(host: str, port: int, *, encrypted: bool) -> str:
    """Where somebody at this machine finds the page."""
    name = host.strip("[]")
    if name in ("0.0.0.0", "::", "127.0.0.1"):
        name = "localhost"
    scheme = "https" if encrypted else "http"
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"


def show(url: str) -> None:
    """Opens a page in the user's browser, or says that there is none. Does not wait for it."""
    import threading

    def opening() -> None:
        import webbrowser

        try:
            found = _has_screen() and webbrowser.open(url)
        except Exception:  # whatever a desktop's own ways may raise
            found = False
        if not found:
            print("--open: found no browser; open the address above", file=sys.stderr, flush=True)

    threading.Thread(target=opening, name="open", daemon=True).start()


def _has_screen() -> bool:
    """Whether a browser could have a window; one of the terminal would take the terminal away."""
    if sys.platform in ("win32", "darwin") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _tls(args: argparse.Namespace) -> SSLContext | None:
    if not args.certificate:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(args.certificate, args.key)
    except OSError as error:
        raise UserError(f"--certificate, --key: {error}") from error
    return context


def _places() -> int:
    """Sessions that this machine is likely to serve in time."""
    import jax

    if jax.default_backend() != "cpu":
        return 8
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // 2)
