"""The page in a real browser, with a recording as its microphone and the shipped release."""

import base64
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tools import browser_latency, live_server

ROOT = Path(__file__).parents[2]
HOW = f"the page tests: {browser_latency.HOW}"
WAIT_S = 120.0  # a test machine may be slow; the page only has to get there

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with live_server.running("--max-sessions", "1") as (url, process):
        yield url
    assert process.returncode in (0, 130, 143)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api", reason=HOW)
    if browser_latency.browser_path() is None:
        pytest.skip(HOW)
    import vasa_jax

    voice = tmp_path_factory.mktemp("voice") / "voice.wav"
    browser_latency.write_voice(voice, vasa_jax.example_speech())
    with sync_api.sync_playwright() as playwright:
        opened = browser_latency.launch(playwright, voice)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(permissions=["microphone"])
    made = context.new_page()
    made.set_default_timeout(WAIT_S * 1e3)
    made.errors = []
    made.on("pageerror", lambda error: made.errors.append(str(error)))
    browser_latency.watch(made)
    made.goto(server)
    yield made
    assert not made.errors
    context.close()
    assert health_after(server) == 0


def health_after(server, seconds=10.0):
    """Sessions of the server, once they had time to end."""
    for _ in range(int(seconds / 0.2)):
        with urllib.request.urlopen(server + "/healthz") as answer:
            left = json.load(answer)["sessions"]
        if not left:
            return 0
        time.sleep(0.2)
    return left


def figure(server, name):
    with urllib.request.urlopen(server + "/metrics") as answer:
        rows = dict(line.split(" ") for line in answer.read().decode().splitlines()
                    if line.startswith("vasa_") and "{" not in line)  # fmt: skip
    return float(rows[name])


CENTRE = """() => {
  const video = document.getElementById("video"), c = document.createElement("canvas");
  c.width = c.height = 64;
  const g = c.getContext("2d");
  g.drawImage(video, 0, 0, 64, 64);
  return Array.from(g.getImageData(12, 8, 40, 48).data);
}"""


def until(page, condition):
    """Polls from outside: the page's security policy lets nobody evaluate strings inside."""
    end = time.monotonic() + WAIT_S
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(200)


def pixels(page):
    return np.array(page.evaluate(CENTRE), np.float64)


def begin(page):
    page.click("#start")
    until(page, "document.getElementById('video').currentTime > 1.5")


def test_the_picture_moves_with_the_microphone(page):
    begin(page)
    until(page, "document.getElementById('state').textContent === 'speaking'")
    first = page.evaluate("document.getElementById('video').currentTime")
    seen = []
    for _ in range(8):
        seen.append(pixels(page))
        page.wait_for_timeout(300)
    assert page.evaluate("document.getElementById('video').currentTime") > first + 1.0
    moves = [np.abs(a - b).mean() for a, b in zip(seen, seen[1:], strict=False)]
    assert max(moves) > 0.3
    until(page, "/ms/.test(document.getElementById('latency').textContent)")
    page.click("#start")
    until(page, "document.getElementById('state').textContent === 'ready'")


def test_a_conversation_by_webrtc(page, server):
    pytest.importorskip("aiortc")
    until(page, "!document.getElementById('transport').hidden")
    page.check("#webrtc")
    begin(page)
    until(page, "document.getElementById('state').textContent === 'speaking'")  # by the track
    seen = []
    for _ in range(8):
        seen.append(pixels(page))
        page.wait_for_timeout(300)
    moves = [np.abs(a - b).mean() for a, b in zip(seen, seen[1:], strict=False)]
    assert max(moves) > 0.3
    tracks = page.evaluate(
        "document.getElementById('video').srcObject.getTracks().map((t) => t.kind).sort()"
    )
    assert tracks == ["audio", "video"]
    until(page, "/ms/.test(document.getElementById('latency').textContent)")
    print(page.evaluate("document.getElementById('latency').textContent"))
    page.click("#start")
    until(page, "document.getElementById('state').textContent === 'ready'")


def test_the_way_from_the_microphone_to_the_screen_is_measured(page):
    begin(page)
    page.wait_for_timeout(15_000)
    found = browser_latency.latency(page)
    print(json.dumps(found))
    assert found["frames"] > 100
    ms = {name: row["p50"] for name, row in found["ms"].items()}
    assert 40 < ms["sound"] <= 120  # what is declared: hop of 80 and look-ahead of 40
    assert ms["total"] > ms["sound"] + ms["encode"] and ms["player"] >= 0
    # The clocks of the page and of the server agree on when the microphone spoke.
    assert abs(ms["transport"]) < 120


def test_sliders_act_while_it_speaks_and_interrupt_works(page, server):
    begin(page)
    before = pixels(page)
    page.evaluate("""() => { for (const [id, v] of [["yaw", 18], ["distance", 0.75]]) {
        const s = document.getElementById(id); s.value = v;
        s.dispatchEvent(new Event("input")); } }""")
    page.wait_for_timeout(4000)
    assert np.abs(pixels(page) - before).mean() > 3.0
    page.click("#interrupt")
    until(page, "document.getElementById('stage').dataset.interrupted >= 1")
    page.click("#start")
    until(page, "document.getElementById('state').textContent === 'ready'")
    assert health_after(server) == 0
    assert figure(server, "vasa_interruptions_total") >= 1


def test_reload_leaves_nothing_behind(page, server):
    for _ in range(3):
        begin(page)
        page.reload()
        assert health_after(server) == 0
    begin(page)


RECORD = """async () => {
  const video = document.getElementById("video");
  const recorder = new MediaRecorder(video.captureStream(), { mimeType: "video/webm" });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const ended = new Promise((done) => { recorder.onstop = done; });
  recorder.start();
  await new Promise((done) => setTimeout(done, 6000));
  recorder.stop();
  await ended;
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}"""


def test_what_the_browser_records_carries_the_mark(page, tmp_path):
    begin(page)
    recorded = tmp_path / "recorded.webm"
    recorded.write_bytes(base64.b64decode(page.evaluate(RECORD)))
    command = [sys.executable, "-m", "vasa_jax", "verify", "--json", str(recorded)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    report = json.loads(found.stdout)["files"][0]
    assert found.returncode == 0 and report["mark"]["found"], report
    assert report["mark"]["payload"]["release_name"] == "lite"


def test_a_portrait_is_not_taken_without_an_answer(page):
    picture = ROOT / "vasa_jax" / "assets" / "example" / "portrait.png"
    page.set_input_files("#portrait", picture)
    page.locator("#consent").wait_for(state="visible")
    page.click("#agree")  # nothing was said: the form stays
    assert page.locator("#consent").is_visible()
    page.click("text=Cancel")
    assert "blob:" not in page.locator("#still").get_attribute("src")
    page.set_input_files("#portrait", picture)
    page.fill("#answer", "the bundled example")
    page.click("#agree")
    until(page, "document.getElementById('still').src.startsWith('blob:')")


def test_page_fits_phone_and_desktop(page):
    for width, height in ((360, 740), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#start").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 44


LARGEST = """() => {
  let best = [0, ""];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!words || !node.checkVisibility()) continue;
    const size = parseFloat(getComputedStyle(node).fontSize);
    if (size > best[0]) best = [size, node.id];
  }
  return best[1];
}"""


def reason(page, words):
    """Waits until the page says ``words``, larger than anything else."""
    until(page, f"document.getElementById('reason').textContent.includes({json.dumps(words)})")
    assert page.evaluate(LARGEST) == "reason"
    until(page, "document.getElementById('start').textContent === 'Start'")


def test_the_page_says_why_largest(browser, page, server):
    assert page.evaluate(LARGEST) != "reason"
    other = browser.new_context(permissions=["microphone"]).new_page()
    other.goto(server)
    begin(other)
    page.click("#start")  # and that was the only place
    reason(page, "All 1 places are taken")
    other.context.close()
    assert health_after(server) == 0
    begin(page)
    assert page.locator("#reason").text_content() == ""
    page.click("#start")


def test_a_page_without_the_token_or_the_server_says_so(browser):
    token = "a-token-of-some-length"
    with live_server.running("--max-sessions", "1", "--token", token) as (url, process):
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.goto(url)
        until(page, "document.getElementById('reason').textContent.includes('wants a token')")
        page.click("#start")
        reason(page, "The token is missing")
        page.goto(f"{url}/#token=wrong")
        page.click("#start")
        reason(page, "The token is wrong")
        page.goto(f"{url}/#token={token}")
        begin(page)
        page.click("#start")
        process.terminate()
        process.wait(30)
        page.click("#start")
        reason(page, "No connection to the server")
        context.close()
