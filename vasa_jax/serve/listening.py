"""The sockets that a server listens on, taken before anything is loaded.

A port that is taken, or an address that this machine does not have, is then told within a moment
and not after the weights were loaded; connections that come meanwhile wait in the sockets' queue.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence

from vasa_jax.core.errors import UserError

QUEUE = 512  # connections that wait to be accepted
_TRIES = 10  # a free port for several addresses
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of ``host``, all at one port (0: any that is free).

    ``::`` is everything, IPv4 too where the system has sockets for both. Raises UserError.
    """
    addresses = _addresses(host, port)
    for last in range(_TRIES):
        sockets: list[socket.socket] = []
        try:
            absent: OSError | None = None
            for family, address in addresses:
                # With port 0 the first socket chooses, the others must follow.
                wanted = sockets[0].getsockname()[1] if sockets else port
                try:
                    sockets.append(_listening(family, (address[0], wanted, *address[2:])))
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise
                    absent = error  # as ::1 of localhost where IPv6 is switched off
            if not sockets and absent is not None:
                raise absent
            return sockets
        except OSError as error:
            for opened in sockets:
                opened.close()
            if port == 0 and sockets and error.errno == errno.EADDRINUSE and last + 1 < _TRIES:
                continue
            raise UserError(_trouble(host, port, error)) from error
    raise AssertionError("not reached")


def families(sockets: Sequence[socket.socket]) -> str:
    """What ``sockets`` serve: "IPv4", "IPv6" or "IPv4 and IPv6"."""
    names = set()
    for listener in sockets:
        if listener.family == socket.AF_INET:
            names.add("IPv4")
        else:
            names.add("IPv6")
            both = not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            if both and listener.getsockname()[0] == "::":
                names.add("IPv4")
    return " and ".join(sorted(names))


def raise_descriptor_limit(most: int = 65_536) -> int:
    """Raises this process's limit of open files as far as it may; the limit that holds now."""
    try:
        import resource
    except ImportError:  # Windows has no such limit for sockets
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if wanted > soft:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft


def open_descriptors() -> int:
    """Files and sockets that this process has open; a guess where the system does not say."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return 64


def _addresses(host: str, port: int) -> list[tuple[int, tuple]]:
    name = host.strip().removeprefix("[").removesuffix("]")
    if not name:
        raise UserError("--host: give an address; 0.0.0.0 or :: are all that this machine has")
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host: no address is known for {name}") from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _listening(family: int, address: tuple) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # a port whose last connections still fade away is free
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            both = address[0] == "::" and socket.has_dualstack_ipv6()
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        listener.bind(address)
        listener.listen(QUEUE)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _trouble(host: str, port: int, error: OSError) -> str:
    where = f"{host}, port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken; end what listens there or give another --port (0: a free one)"
    if error.errno == errno.EACCES:
        return f"{where} needs more rights than you have; give a --port from 1024 on"
    if error.errno in _ABSENT:
        return f"--host: this machine has no address {host}"
    return f"can't listen on {where}: {error.strerror}"
