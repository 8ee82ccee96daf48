"""Who may use a server: its names, the sites that may connect, its token, and whose request it is.

* *Token*: where there is one, every upload, session and ``/metrics`` must bring it.
* *Host*: a server that listens on this machine alone answers only to this machine's own names and
  to those that ``--public-url`` and ``--origin`` give it. A foreign name is a rebound DNS entry.
* *Origin*: a browser's request must come from the server's own page or from one of those sites.
* *Address*: a proxy's requests are its visitors'. ``X-Forwarded-For`` is believed where the
  connection comes from this machine or from a ``--proxy``, from nobody else.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from vasa_jax.core.errors import UserError
from vasa_jax.serve.protocol import Refused

TOKEN_LENGTH = (16, 200)  # characters; the protocol takes no longer ones
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[0-9a-z._:%-]+")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    address = read_address(host)
    return address is not None and address.is_loopback


def check_reach(host: str, token: str) -> None:
    """Raises UserError for a server that others reach without a token, and for a token that no
    client could bring.
    """
    low, high = TOKEN_LENGTH
    if not is_local(host) and len(token) < low:
        raise UserError(
            f"--host {host} can be reached by others: give --token with {low} or more "
            f"characters, as in --token {secrets.token_urlsafe(18)}"
        )
    if len(token) > high or not all("!" <= sign <= "~" for sign in token):
        raise UserError(
            f"--token: at most {high} letters, digits and signs of ASCII, without blanks, "
            f"as in --token {secrets.token_urlsafe(18)}"
        )


class Site(NamedTuple):
    """Where a page comes from; ``port`` is the scheme's own where none is named."""

    host: str
    port: int


class PublicUrl(NamedTuple):
    """The address that people use for a server behind a proxy."""

    origin: str
    site: Site
    path: str  # begins and ends with "/"


def read_url(text: str, option: str) -> PublicUrl:
    """A URL that the user gave. Raises UserError."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        found = _site(parts.scheme, parts.netloc)
        if found is not None and not parts.query and not parts.fragment:
            path = parts.path.strip("/")
            origin = f"{parts.scheme.lower()}://{parts.netloc.lower()}"
            return PublicUrl(origin, found, f"/{path}/" if path else "/")
    raise UserError(f"{option}: {text!r} is no address like https://me.example/talk/")


def read_network(text: str) -> Network:
    """An address or a network of them, as ``--proxy`` takes it. Raises UserError."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise UserError(f"--proxy: {text!r} is no address like 10.0.0.7 or 10.0.0.0/24") from None


def read_address(text: str) -> Address | None:
    """The address in a host's name or a proxy's header (with brackets, a port or a zone); or None.

    An IPv4 address in IPv6's clothes comes back as what it is.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def crowd(address: Address | None) -> str:
    """Whom the limits of one address count together: an IPv4 address, a /64 of IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Access:
    """The checks of one server; all raise Refused with the code ``unauthorised``."""

    def __init__(
        self,
        *,
        host: str,
        token: str = "",
        origins: Iterable[str] = (),
        public_url: str = "",
        proxies: Iterable[str] = (),
    ):
        check_reach(host, token)
        self._token = token
        self._alone = is_local(host)
        self.public = read_url(public_url, "--public-url") if public_url else None
        sites = [read_url(text, "--origin").site for text in origins]
        self._sites = set(sites) | ({self.public.site} if self.public else set())
        self._names = {site.host for site in self._sites}
        self._proxies = [read_network(text) for text in proxies]

    @property
    def token_needed(self) -> bool:
        return bool(self._token)

    def check_host(self, host: str | None) -> None:
        """``host`` is the request's ``Host`` header; a browser always sends one."""
        if not self._alone or host is None:
            return
        found = _site("http", host)
        name = found.host if found else ""
        if not is_local(name) and name not in self._names:
            raise Refused(
                "unauthorised",
                f"this server answers to localhost alone, not to {_shown(name)}; "
                f"behind a proxy start it with --public-url https://{_shown(name)}/",
            )

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """``origin`` as a browser sends it, None where there is none."""
        self.check_host(host)
        if origin is None:
            return
        scheme, _, place = origin.partition("://")
        found = _site(scheme, place)
        if found is None or (found not in self._sites and found != _site(scheme, host or "")):
            raise Refused(
                "unauthorised",
                f"requests from {_shown(origin)} are not allowed; if that is this server behind "
                f"a proxy, start it with --public-url {_shown(origin)}/",
            )

    def check_token(self, token: str | None) -> None:
        """Any text may come, also bytes that are no UTF-8 and halves of characters."""
        if not self._token:
            return
        given = (token or "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, self._token.encode()):
            raise Refused("unauthorised", "the token is wrong" if token else "the token is missing")

    @staticmethod
    def token_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        """The token in a request's head: ``Authorization: Bearer``, else ``?token=``; or None.

        Another kind of ``Authorization`` is a proxy's business.
        """
        kind, _, token = headers.get("Authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else query.get("token")

    def trusts(self, peer: Address | None) -> bool:
        """Whether a connection from there may speak for others."""
        return peer is not None and (peer.is_loopback or any(peer in n for n in self._proxies))

    def client(self, peer: Address | None, forwarded: Sequence[str]) -> Address | None:
        """Whose request it is: the nearest address that is no proxy of ours.

        ``forwarded``: all ``X-Forwarded-For`` headers, the nearest hop last.
        """
        hops = [hop for line in forwarded for hop in line.split(",")]
        while hops and self.trusts(peer):
            hop = read_address(hops.pop())
            if hop is None:
                break
            peer = hop
        return peer


def _site(scheme: str, place: str) -> Site | None:
    """Host and port of ``host[:port]``; None where it is no such thing."""
    port = _PORTS.get(scheme.lower())
    try:
        parts = urlsplit(f"//{place}")
        name = (parts.hostname or "").encode("idna").decode().rstrip(".")
        if port is None or not _NAME.fullmatch(name) or parts.netloc != place or "@" in place:
            return None
        return Site(name, parts.port or port)
    except ValueError:
        return None


def _shown(text: str) -> str:
    """A name that a stranger chose, fit for a message."""
    return "".join(sign if "!" <= sign <= "~" else "?" for sign in text[:80]) or "no name"
