"""The command's own part: what it refuses at once, a GPU's memory, and the page in a browser."""

import os
import stat
import subprocess
import sys
import time

import pytest

from vasa_jax.cli import serve
from vasa_jax.cli.main import main


@pytest.mark.parametrize("arguments, words", [
    (["--host", "0.0.0.0"], "--token"),
    (["--port", "70000"], "--port"),
    (["--public-url", "me.example"], "--public-url"),
    (["--origin", "me.example"], "--origin"),
    (["--proxy", "nginx"], "--proxy"),
    (["--session-minutes", "nan"], "--session-minutes"),
    (["--session-minutes", "0"], "--session-minutes"),
    (["--certificate", "nothing.pem"], "--key"),
    (["--certificate", "nothing.pem", "--key", "nothing.pem"], "--certificate"),
    (["--host", "nowhere.invalid", "--token", "x" * 20], "--host"),
])  # fmt: skip
def test_what_is_wrong_is_told_at_once(arguments, words, capsys):
    assert main(["serve", "--release", "nothing", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "loading" not in said and len(said.splitlines()) == 1


def test_a_gpus_memory_is_taken_as_needed_unless_somebody_chose():
    environ = {}
    serve.take_memory_as_needed(environ)
    assert environ == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    for name in serve.GPU_MEMORY:
        chosen = {name: "0.5"}
        serve.take_memory_as_needed(chosen)
        assert chosen == {name: "0.5"}


def test_the_page_has_an_address_for_every_host():
    assert serve.page_url("0.0.0.0", 80, encrypted=False) == "http://localhost:80/"
    assert serve.page_url("::", 8765, encrypted=True) == "https://localhost:8765/"
    assert serve.page_url("::1", 8765, encrypted=False) == "http://[::1]:8765/"
    assert serve.page_url("me.example", 1, encrypted=False) == "http://me.example:1/"


def test_open_shows_the_page_in_the_users_browser_and_waits_for_nothing(tmp_path):
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    code = "import sys, time; from vasa_jax.cli.serve import show; show(sys.argv[1]); time.sleep(9)"
    command = [sys.executable, "-c", code, "http://localhost:1/#token=a%2Bb"]
    process = subprocess.Popen(command, env=os.environ | {"BROWSER": str(browser)})
    end = time.monotonic() + 30
    while not seen.exists() or not seen.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert seen.read_text() == "http://localhost:1/#token=a%2Bb"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a screen")
def test_open_without_a_screen_says_so(capsys, monkeypatch):
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    serve.show("http://localhost:1/")
    end, said = time.monotonic() + 10, ""
    while not said and time.monotonic() < end:
        time.sleep(0.02)
        said = capsys.readouterr().err
    assert "found no browser" in said
