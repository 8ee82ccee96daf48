"""``vasa-jax serve``: the live page and its protocol."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from vasa_jax.core.errors import UserError

EPILOG = """\
The page is at http://HOST:PORT/ ; with a token, at http://HOST:PORT/#token=TOKEN . Browsers give a
microphone only to localhost and to https: on other addresses use --certificate and --key, or a
proxy that speaks https. The protocol for programs is in vasa_jax/serve/PROTOCOL.md.

examples:
  vasa-jax serve
  vasa-jax serve --host 0.0.0.0 --token SECRET --certificate cert.pem --key key.pem
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (8765)")
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
    parser.add_argument("--origin", action="append", default=[], help="other site that may connect")
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
    if bool(args.certificate) != bool(args.key):
        raise UserError("--certificate and --key belong together")

    from vasa_jax.generate.realtime import LiveConfig
    from vasa_jax.serve.server import ServeConfig

    live = LiveConfig(
        hop=args.hop, ahead=args.ahead, steps=args.steps, places=args.max_sessions or _places()
    )
    cfg = ServeConfig(
        host=args.host, port=args.port, token=args.token, origins=tuple(args.origin),
        session_s=args.session_minutes * 60, live=live, ask_consent=not args.no_consent,
    )  # fmt: skip
    _log_to(args.log)
    print(f"loading {args.release}", file=sys.stderr, flush=True)
    return asyncio.run(_serve(cfg, args))


def _log_to(path: str | None) -> None:
    """Sends the sessions' log, one JSON object a line after the time, to a file or to stderr."""
    import logging

    try:
        handler = logging.FileHandler(path) if path else logging.StreamHandler()
    except OSError as error:
        raise UserError(f"--log: can't write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("vasa_jax.serve")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


async def _serve(cfg, args: argparse.Namespace) -> int:
    from aiohttp import web

    from vasa_jax.serve.server import LiveServer

    server = LiveServer(cfg, args.release)
    server.prepare()
    # No access log: nothing that is said or shown here leaves a trace on the disk. The sessions'
    # log names portraits by a random word, with the consent that came with them.
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=3.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, cfg.host, cfg.port, ssl_context=_tls(args))
        await site.start()
        port = runner.addresses[0][1]
        scheme = "https" if args.certificate else "http"
        name = "localhost" if cfg.host in ("0.0.0.0", "::", "127.0.0.1") else cfg.host
        suffix = "#token=..." if cfg.token else ""
        print(
            f"{scheme}://{name}:{port}/{suffix}  sessions: {cfg.live.places}, "
            f"latency {server.live.latency_ms:.0f} ms and compute; Ctrl-C stops",
            flush=True,
        )
        await asyncio.Event().wait()
    except OSError as error:
        raise UserError(f"can't listen on {cfg.host}:{cfg.port}: {error.strerror}") from error
    finally:
        await runner.cleanup()
        server.live.close()
    return 0


def _tls(args: argparse.Namespace):
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
