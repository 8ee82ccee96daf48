"""The container's health check, as the Dockerfile has it: past proxies, with any certificate."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.serve.house import encrypting, house
from vasa_jax.core.errors import UserError
from vasa_jax.serve.health import PORT, default_port, health
from vasa_jax.serve.listening import listen

ROOT = Path(__file__).parents[2]


def command():
    """What follows HEALTHCHECK ... CMD, with this Python."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    words = json.loads(re.search(r"^HEALTHCHECK .*?CMD (\[.*\])", text, re.MULTILINE)[1])
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


async def check(port):
    dead = "http://127.0.0.1:9"  # a proxy that nobody should ask
    environment = os.environ | dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), dead
    )
    process = await asyncio.create_subprocess_exec(
        *command(), env=environment | {"VASA_PORT": str(port)}, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, said = await process.communicate()
    return process.returncode, (out + said).decode()


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_is_well_is_found_well(tls, tmp_path):
    async def run():
        context = encrypting(tmp_path)[0] if tls else None
        async with house(tls=context) as (_, port, _):
            code, said = await check(port)
            assert code == 0 and "0 of 1 places" in said, said
        code, said = await check(port)  # it has ended
        assert code == 1 and f"port {port}" in said and len(said.splitlines()) == 1, said

    asyncio.run(run())


def test_a_server_that_does_not_answer_is_not_well():
    (silent,) = listen("127.0.0.1", 0)
    with silent, pytest.raises(UserError, match="no server answers"):
        health(silent.getsockname()[1], wait_s=0.2)


def test_the_port_of_a_container_comes_from_its_environment(monkeypatch):
    for text, port in (("9000", 9000), ("", PORT), ("tcp://10.0.0.1:80", PORT)):
        monkeypatch.setenv("VASA_PORT", text)
        assert default_port() == port
