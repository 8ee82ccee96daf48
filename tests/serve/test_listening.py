"""Ports are taken, or found taken, before anything is loaded."""

import errno
import socket
import subprocess
import sys

import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.serve import listening
from vasa_jax.serve.listening import families, listen


def connects(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        return client.connect_ex((address, port)) == 0


@pytest.fixture
def opened():
    sockets = []
    yield sockets
    for listener in sockets:
        listener.close()


def test_all_of_ipv6_is_all_of_ipv4_too(opened):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    opened += listen("::", 0)
    port = opened[0].getsockname()[1]
    assert families(opened) == "IPv4 and IPv6"
    assert connects("127.0.0.1", port) and connects("::1", port)
    assert families(listen_and_keep(opened, "::1")) == "IPv6"
    assert families(listen_and_keep(opened, "0.0.0.0")) == "IPv4"


def listen_and_keep(opened, host):
    sockets = listen(host, 0)
    opened += sockets
    return sockets


def test_where_one_socket_has_no_room_for_both_it_says_so(opened, monkeypatch):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(listening.socket, "has_dualstack_ipv6", lambda: False)
    assert families(listen_and_keep(opened, "::")) == "IPv6"


def test_a_name_with_several_addresses_has_one_port(opened, monkeypatch):
    found = [(socket.AF_INET, 1, 6, "", (f"127.0.0.{n}", 0)) for n in (1, 2, 3)]
    found.append((socket.AF_INET, 1, 6, "", ("203.0.113.1", 0)))  # which this machine has not
    monkeypatch.setattr(listening.socket, "getaddrinfo", lambda *a, **k: found)
    assert len({s.getsockname()[1] for s in listen_and_keep(opened, "several")}) == 1
    assert len(opened) == 3


@pytest.mark.parametrize("host, words", [
    ("203.0.113.1", "no address"), ("nowhere.invalid", "no address is known"), ("", "--host"),
])  # fmt: skip
def test_an_address_that_is_not_here_is_refused(host, words):
    with pytest.raises(UserError, match=words):
        listen(host, 0)


def test_a_port_that_needs_rights_is_told(monkeypatch):
    def bind(*unused):
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(listening, "_listening", bind)
    with pytest.raises(UserError, match="port 80 needs more rights"):
        listen("127.0.0.1", 80)


def test_a_busy_port_is_told_before_anything_is_loaded(opened):
    port = listen_and_keep(opened, "127.0.0.1")[0].getsockname()[1]
    with pytest.raises(UserError, match=f"port {port} is taken"):
        listen("127.0.0.1", port)
    code = (
        "import sys; from vasa_jax.cli.main import main; code = main(sys.argv[1:]); "
        "assert not {'jax', 'vasa_jax.serve.server'} & set(sys.modules); raise SystemExit(code)"
    )
    command = [sys.executable, "-c", code, "serve", "--port", str(port), "--release", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"port {port} is taken" in done.stderr, done.stderr
    assert "loading" not in done.stderr and len(done.stderr.splitlines()) == 1
