"""Connections that show no token: how long, how many, and who has to go."""

import asyncio
import contextlib
import json
import logging
import re
import ssl
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from tests.serve import strangers
from tests.serve.house import QUICK, encrypting, house
from vasa_jax.serve.door import Limits
from vasa_jax.serve.listening import open_descriptors, raise_descriptor_limit

SLACK_S = 6.0  # of a busy machine; without limits the strangers below stay for good


async def ask(port, path="/", headers="", reading=True):
    """A connection that has asked; what it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(4096), 10) if reading else b""
    return reader, writer, answer


async def is_open(reader, seconds=0.3):
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(100) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


KINDS = [strangers.Silent, strangers.HalfOpen, strangers.SlowHead, strangers.SlowBody,
         strangers.Garbage, strangers.OddToken, strangers.KeptAlive, strangers.Deaf]  # fmt: skip


@pytest.mark.parametrize("tls", [False, True])
def test_a_stranger_of_any_kind_is_gone_in_time(tls, tmp_path):
    async def run():
        context = encrypting(tmp_path)[0] if tls else None
        async with house(tls=context) as (door, port, notes):
            until = asyncio.get_running_loop().time() + 40.0
            held = await asyncio.gather(*(k("127.0.0.1", port).hold(until) for k in KINDS))
            for kind, seconds in zip(KINDS, held, strict=True):
                assert seconds < QUICK.life_s * 1.5 + SLACK_S, kind
            assert not door._everybody and not door._strangers and not door._groups
            assert set(notes) <= {"slow"}

    asyncio.run(run())


def test_an_answer_comes_by_tls(tmp_path):
    async def run():
        context, pem = encrypting(tmp_path)
        async with house(tls=context) as (_, port, _), aiohttp.ClientSession() as http:
            trust = ssl.create_default_context(cafile=pem)
            async with http.get(f"https://localhost:{port}/", ssl=trust) as answer:
                assert answer.status == 200

    asyncio.run(run())


def test_one_address_has_few_strangers_and_the_newest_stay():
    async def run():
        async with house(Limits(per_address=4)) as (door, port, notes):
            several = [await ask(port, headers="X-Forwarded-For: 203.0.113.5\r\n")
                       for _ in range(6)]  # fmt: skip
            other = await ask(port, headers="X-Forwarded-For: 1.1.1.1, 203.0.113.6\r\n")
            assert [await is_open(reader) for reader, _, _ in several] == [False] * 2 + [True] * 4
            assert await is_open(other[0])
            assert notes == ["crowded"] * 2
            # A whole network of the sixth version counts as one.
            six = [await ask(port, headers=f"X-Forwarded-For: 2001:db8::{n}\r\n") for n in range(5)]
            assert not await is_open(six[0][0]) and await is_open(six[1][0])
            for _, writer, _ in [*several, other, *six]:
                writer.close()

    asyncio.run(run())


def test_a_full_house_takes_the_next_one_for_the_oldest_stranger_and_for_no_guest():
    async def run():
        async with house(Limits(connections=6)) as (door, port, notes):
            guests = [await ask(port, "/stay?seconds=30", reading=False) for _ in range(3)]
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            while len(door._strangers) != 3:
                await asyncio.sleep(0.01)
            one = await ask(port)
            assert b"200 OK" in one[2]
            assert [await is_open(reader) for reader, _ in silent] == [False, True, True]
            more = [await ask(port, "/stay?seconds=30", reading=False) for _ in range(3)]
            while door._strangers:
                await asyncio.sleep(0.01)
            reader, _, _ = await ask(port, reading=False)  # nobody is left who would have to go
            assert not await is_open(reader, 5.0)
            assert all([await is_open(reader, 0.05) for reader, _, _ in guests + more])
            assert set(notes) == {"crowded"}
            for _, writer, _ in guests + more:
                writer.transport.abort()

    asyncio.run(run())


def test_a_guest_stays_as_long_as_it_has_to_and_is_a_stranger_afterwards():
    async def run():
        limits = Limits(head_s=0.3, life_s=0.6)
        async with house(limits) as (door, port, _):
            reader, writer, answer = await ask(port, "/stay?seconds=2")
            assert b"stayed" in answer
            assert not await is_open(reader, SLACK_S)
            writer.close()

    asyncio.run(run())


def test_an_old_connection_gets_its_answer_and_no_other():
    async def run():
        async with house(Limits(life_s=1.0)) as (_, port, _):
            reader, writer, answer = await ask(port)
            assert b"close" not in answer.lower()
            await asyncio.sleep(0.6)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):  # a busy machine may have been too late
                answer = await asyncio.wait_for(reader.read(4096), 5)
                assert not answer or b"connection: close" in answer.lower()
            assert not await is_open(reader, SLACK_S)

    asyncio.run(run())


def test_without_file_descriptors_the_log_stays_short_and_those_who_ask_are_answered():
    async def run():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.serve.house", "40", cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        port = int(await process.stdout.readline())
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        began = time.monotonic()
        _, writer, answer = await asyncio.wait_for(ask(port), 60)
        assert b"200 OK" in answer
        await asyncio.sleep(max(0.0, began + 2.0 - time.monotonic()))
        for _, opened in [*silent, (None, writer)]:
            opened.transport.abort()
        _, said = await process.communicate(b"")  # its end
        assert len(said.splitlines()) < 20, said.decode()[-2000:]

    asyncio.run(run())


def test_there_are_fewer_connections_than_descriptors():
    limit = raise_descriptor_limit()
    assert Limits(connections=10**6).within_descriptors(10).connections <= limit - 10
    assert open_descriptors() > 3
    assert Limits(connections=10**6).within_descriptors(10**6).connections == 8
    assert Limits(connections=50).within_descriptors(10).connections == 50


def test_a_flood_is_told_in_one_line(caplog):
    async def run():
        async with house(Limits(per_address=2)) as (_, port, notes):
            several = [await ask(port, headers="X-Forwarded-For: 203.0.113.5\r\n")
                       for _ in range(12)]  # fmt: skip
            assert len(notes) == 10
            for _, writer, _ in several:
                writer.transport.abort()

    with caplog.at_level(logging.INFO, "vasa_jax.serve"):
        asyncio.run(run())
    (line,) = [json.loads(r.message) for r in caplog.records if r.name == "vasa_jax.serve"]
    assert line["reasons"] == {"crowded": 10}


def test_what_comes_out_of_a_limit_is_an_answer_in_http():
    """A name that is not ours, a body for nobody, a head of nonsense: never a traceback."""

    async def run():
        async with house(Limits()) as (_, port, _):
            for head, status in (
                ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "403"),
                ("GET / HTTP/1.1\r\nHost: me.example\r\n\r\n", "403"),
                ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
                ("GET /page/%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
                ("GET / HTTP/1.0\r\n\r\n", "200"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head.encode())
                answer = await asyncio.wait_for(reader.read(4096), 10)
                assert re.match(rf"HTTP/1.[01] {status}", answer.decode()), (head, answer)
                writer.close()

    asyncio.run(run())
