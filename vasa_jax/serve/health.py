"""Asks the server of this machine or container whether it is well.

    python -m vasa_jax.serve.health [PORT]

The port is ``$VASA_PORT`` or 8765 where none is given. Neither proxies of the environment nor the
name in a certificate matter here: it is this machine that is asked. Exit status 0 when it is well.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from collections.abc import Sequence

from vasa_jax.core.errors import UserError

PORT = 8765
ADDRESSES = ("127.0.0.1", "::1")
WAIT_S = 5.0


def default_port() -> int:
    """``$VASA_PORT`` where it is a number; Kubernetes sets it to an address for its own ends."""
    text = os.environ.get("VASA_PORT", "").strip()
    return int(text) if text.isdecimal() else PORT


def health(port: int, *, wait_s: float = WAIT_S) -> dict:
    """What ``/healthz`` says, by http or https. Raises UserError."""
    trouble = ""
    for address in ADDRESSES:
        for encrypted in (False, True):
            try:
                return _ask(address, port, encrypted, wait_s)
            except (OSError, http.client.HTTPException, ValueError) as error:
                trouble = trouble or str(error) or type(error).__name__
    raise UserError(f"no server answers on port {port}: {trouble}")


def _ask(address: str, port: int, encrypted: bool, wait_s: float) -> dict:
    connection: http.client.HTTPConnection
    if encrypted:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, port, timeout=wait_s, context=context)
    else:
        connection = http.client.HTTPConnection(address, port, timeout=wait_s)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        said = json.loads(response.read())
        if response.status != 200 or not isinstance(said, dict) or said.get("status") != "ok":
            raise ValueError(f"it answered {response.status}: {said}")
        return said
    finally:
        connection.close()


def main(argv: Sequence[str]) -> int:
    """The exit status; one line says why it is not 0."""
    text = argv[0] if argv else str(default_port())
    try:
        if not text.isdecimal():
            raise UserError(f"{text!r} is no port")
        said = health(int(text))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{said.get('sessions')} of {said.get('max_sessions')} places are taken")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
