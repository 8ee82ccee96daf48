"""Who may use a server: names, sites, tokens, and whose request it is."""

import ipaddress

import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.serve.access import Access, crowd, read_address, read_url
from vasa_jax.serve.protocol import Refused

TOKEN = "a-token-of-some-length"


def refusal(check, *args):
    with pytest.raises(Refused) as refused:
        check(*args)
    assert refused.value.code == "unauthorised"
    return str(refused.value)


@pytest.mark.parametrize("token", [
    None, "", "wrong", TOKEN + "x", TOKEN[:-1], "\udcff\udcfe", "\ud800", TOKEN + "\ud800", "é" * 9,
])  # fmt: skip
def test_any_text_is_a_wrong_token(token):
    access = Access(host="0.0.0.0", token=TOKEN)
    assert "token" in refusal(access.check_token, token)
    access.check_token(TOKEN)
    Access(host="localhost").check_token(token)  # where there is none, all will do


@pytest.mark.parametrize("token", ["short", "x" * 201, "with a blank in between", "ünïcödé" * 4])
def test_a_token_that_no_client_could_bring_is_refused_at_once(token):
    with pytest.raises(UserError, match="--token"):
        Access(host="0.0.0.0", token=token)


def test_a_token_comes_in_a_header_or_a_query():
    def of(header=None, query=None):
        headers = {} if header is None else {"Authorization": header}
        return Access.token_of(headers, {} if query is None else {"token": query})

    assert of("Bearer abc") == of("bearer  abc ") == of(query="abc") == "abc"
    assert of() is None and of("Basic dXNlcg==") is None  # which is a proxy's business
    assert of("Basic dXNlcg==", "abc") == "abc"
    assert of("Bearer \udcff\udcfe") == "\udcff\udcfe"


def test_a_server_of_this_machine_answers_to_its_own_names():
    access = Access(host="127.0.0.1")
    for host in (None, "localhost", "LOCALHOST:8765", "127.0.0.1:80", "[::1]:8765", "localhost."):
        access.check_host(host)
    for host in ("", "me.example", "localhost.me.example", "127.0.0.1.me.example", "[::1", "a b",
                 "user@localhost", "\udcff", "10.0.0.1", "localhost:80:80"):  # fmt: skip
        refusal(access.check_host, host)
    said = refusal(access.check_host, "me.example:443")
    assert "--public-url https://me.example/" in said
    Access(host="0.0.0.0", token=TOKEN).check_host("me.example")


def test_a_proxy_is_named_by_the_address_that_people_use():
    behind = Access(host="127.0.0.1", public_url="https://Me.example/talk")
    assert behind.public.path == "/talk/" and behind.public.origin == "https://me.example"
    for host in ("me.example", "me.example:443", "ME.EXAMPLE", "127.0.0.1:8765", "localhost"):
        behind.check_origin("https://me.example", host)  # whether the proxy keeps the name or not
        behind.check_origin(None, host)
    for origin in ("http://me.example", "https://me.example:8443", "https://me.example.evil", "",
                   "null", "https://", "file://", "https://me.example/talk"):  # fmt: skip
        refusal(behind.check_origin, origin, "127.0.0.1:8765")
    refusal(behind.check_host, "rebound.example")
    said = refusal(Access(host="127.0.0.1").check_origin, "https://me.example", "127.0.0.1:8765")
    assert "--public-url https://me.example/" in said


def test_other_sites_may_connect_where_they_were_named():
    access = Access(host="127.0.0.1", origins=["https://other.example:444/"])
    access.check_origin("https://other.example:444", "localhost:8765")
    access.check_origin("http://localhost:8765", "localhost:8765")
    access.check_host("other.example")
    for origin in ("http://localhost:8766", "http://[", "https://other.example"):
        refusal(access.check_origin, origin, "localhost:8765")
    public = Access(host="0.0.0.0", token=TOKEN)
    public.check_origin("https://me.example", "me.example:443")
    public.check_origin("https://me.example:443", "me.example")
    refusal(public.check_origin, "https://evil.example", "me.example")


@pytest.mark.parametrize("url", ["me.example", "ftp://me.example/", "https://", "https://a b/",
                                 "https://me.example/?x", "https://[::1", ""])  # fmt: skip
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(UserError, match="--public-url"):
        read_url(url, "--public-url")


def test_a_proxy_that_is_trusted_says_whose_request_it_is():
    access = Access(host="0.0.0.0", token=TOKEN, proxies=["10.0.0.0/24"])

    def client(peer, *forwarded):
        return str(access.client(ipaddress.ip_address(peer), forwarded))

    assert client("203.0.113.9", "1.2.3.4") == "203.0.113.9"  # a stranger says what it likes
    assert client("127.0.0.1") == "127.0.0.1"
    assert client("127.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert client("::1", "1.2.3.4, 203.0.113.9") == "203.0.113.9"  # and so does its header
    assert client("127.0.0.1", "1.2.3.4", "203.0.113.9, 10.0.0.7") == "203.0.113.9"
    assert client("10.0.0.7", "[2001:db8::7]:4711") == "2001:db8::7"
    assert client("127.0.0.1", "nonsense") == "127.0.0.1"
    with pytest.raises(UserError, match="--proxy"):
        Access(host="localhost", proxies=["proxy.example"])


def test_addresses_are_counted_as_what_they_are():
    assert str(read_address("::ffff:203.0.113.9")) == "203.0.113.9"
    assert str(read_address("203.0.113.9:80")) == "203.0.113.9"
    assert str(read_address("fe80::1%eth0")) == "fe80::1"
    assert read_address("me.example") is None and read_address("") is None
    assert crowd(read_address("2001:db8::1")) == crowd(read_address("2001:db8::ffff"))
    assert crowd(read_address("203.0.113.9")) != crowd(read_address("203.0.113.8"))
