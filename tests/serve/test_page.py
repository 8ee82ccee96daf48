"""What the page knows without a screen, in Node where there is one; see e2e/test_live_page.py."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "vasa_jax" / "serve" / "page"
SCRIPT = """
import * as words from "./words.mjs";
const answer = (status, body) => async () => new Response(body, { status });
console.log(JSON.stringify({
  tokens: ["", "#", "#token=a%2Bb", "#token=a+b", "#x=1&token=%zz", "#nottoken=x"].map(
    words.tokenOf),
  sockets: ["http://localhost:8765/", "https://me.example/talk/", "https://me.example/a/b/"].map(
    (page) => words.socketBeside(page, "v2/session")),
  beside: words.beside("https://me.example/talk/", "page/recorder.js"),
  reasons: [words.reasonOf("disconnected", "the token is wrong"), words.reasonOf("stopped", ""),
    words.reasonOf("disconnected", ""), words.reasonOf("no player", "it has no H.264.")],
  server: [
    await words.reasonOfServer(answer(503, '{"message": "all 2 places are taken"}')),
    await words.reasonOfServer(answer(502, "<html>Bad Gateway</html>")),
    await words.reasonOfServer(answer(200, "{}")),
    await words.reasonOfServer(() => { throw new TypeError("Failed to fetch"); }),
  ],
}));
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    if shutil.which("node") is None:
        pytest.skip("needs node")
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(PAGE / "words.js", folder / "words.mjs")
    (folder / "test.mjs").write_text(SCRIPT)
    done = subprocess.run(["node", "test.mjs"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_token_is_what_was_typed_or_encoded(said):
    assert said["tokens"] == ["", "", "a+b", "a+b", "%zz", ""]


def test_the_socket_is_beside_the_page(said):
    assert said["sockets"] == ["ws://localhost:8765/v2/session", "wss://me.example/talk/v2/session",
                               "wss://me.example/a/b/v2/session"]  # fmt: skip
    assert said["beside"] == "https://me.example/talk/page/recorder.js"


def test_the_reason_is_the_servers_not_the_sockets(said):
    assert said["reasons"] == ["The token is wrong.", "", "The connection was lost.",
                               "It has no H.264."]  # fmt: skip
    taken, gateway, unpassed, nobody = said["server"]
    assert taken == "All 2 places are taken." and "502" in gateway
    assert "WebSocket" in unpassed and nobody == "No connection to the server."


def test_nothing_on_the_page_is_larger_than_the_reason():
    css = (PAGE / "page.css").read_text()
    sizes = {
        rule: max(float(v) for v in re.findall(r"([\d.]+)rem", size))
        for rule, size in re.findall(r"([^{}]+)\{[^{}]*font-size: ([^;]+);", css)
    }
    (reason,) = (size for rule, size in sizes.items() if "#reason" in rule)
    assert reason == max(sizes.values()) > 1.5
    assert '<p id="reason" role="alert"></p>' in (PAGE / "index.html").read_text()


def test_the_page_asks_for_nothing_by_an_absolute_path():
    """It would leave the folder of a proxy."""
    for file in PAGE.iterdir():
        text = file.read_text()
        assert not re.search(r"""(?:src|href)=["']/""", text), file.name
        assert not re.search(r"""["'`]/(?:v2|page|healthz|metrics)""", text), file.name
        assert "location.host" not in text, file.name
