"""From the microphone's sample to the displayed frame, measured inside a browser.

``watch(page)`` before the page is opened, then let it speak, then ``latency(page)``. The page is
not changed: what it sends and gets passes by, and ``requestVideoFrameCallback`` tells when each
frame of the video was shown. Frame n shows what is heard from sample 640 n of the session's
timeline on (16 kHz), which is the microphone's sound with the silence that the server put in and
without what it dropped.

The parts of one frame, in ms: ``sound``, the hop and its look-ahead (declared); ``compute``, until
the server had the encoded picture, of which ``motion``, ``render`` and ``encode`` are told apart;
``transport``, until its bytes were in the page; ``player``, until it was on the screen. ``total``
is measured from end to end, not added up; half a piece of the microphone (10 ms) is its error.
"""

from __future__ import annotations

import bisect
import shutil
from pathlib import Path
from typing import Any

import numpy as np

FPS = 25
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOW = "a browser is needed: pip install playwright && apt-get install chromium"
WATCH = """
window.seen = { sent: [], came: [], stats: [], shown: [], rate: 0, priming: 0 };
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => {
      const now = performance.now();
      if (typeof data === "string") {
        const message = JSON.parse(data);
        if (message.type === "stats") seen.stats.push([now, message.counts]);
        if (message.type === "ready") seen.priming = message.priming_s;
        return;
      }
      const size = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
      if (header.type === "video") seen.came.push([header.index, now, header.ms]);
    });
  }
  send(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "start") seen.rate = message.rate;
    } else seen.sent.push([performance.now(), data.byteLength / 2]);
    super.send(data);
  }
};
addEventListener("DOMContentLoaded", () => {
  const video = document.getElementById("video");
  const next = (now, frame) => {
    seen.shown.push([frame.mediaTime, frame.expectedDisplayTime]);
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
});
"""


def browser_path() -> str | None:
    """A browser of the system; Playwright's own are not asked for."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def launch(playwright: Any, wave: Path) -> Any:
    """A headless browser whose microphone hears ``wave`` over and over."""
    # Tests may run as root in a container, where Chromium has no sandbox.
    return playwright.chromium.launch(
        executable_path=browser_path(),
        args=["--no-sandbox", "--use-fake-ui-for-media-stream",
              "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={wave}",
              "--autoplay-policy=no-user-gesture-required"],
    )  # fmt: skip


def write_voice(path: Path, speech: Path) -> Path:
    """What the microphone is to hear: a recording, then a second of silence."""
    import soundfile

    samples, rate = soundfile.read(speech, dtype="float32")
    soundfile.write(path, np.concatenate([samples, np.zeros(rate, np.float32)]), rate)
    return path


def watch(page: Any) -> None:
    """Before ``page.goto``: from then on the page's traffic and frames are noted."""
    page.add_init_script(WATCH)


def latency(page: Any, *, settle_s: float = 3.0) -> dict[str, Any]:
    """p50 and p95 in ms of each part, over the frames shown after ``settle_s`` seconds."""
    return summary(page.evaluate("seen"), settle_s=settle_s)


def summary(seen: dict[str, Any], *, settle_s: float = 3.0) -> dict[str, Any]:
    """``latency`` of what ``WATCH`` noted; without a frame to tell of, ``frames`` is 0."""
    ends = np.cumsum([count for _, count in seen["sent"]])  # samples sent so far
    times = [at for at, _ in seen["sent"]]
    came = {int(index): (at, ms) for index, at, ms in seen["came"]}
    told = [at for at, _ in seen["stats"]]
    rows: list[dict[str, float]] = []
    for media, shown in seen["shown"]:
        index = round((media - seen["priming"]) * FPS)
        if index < settle_s * FPS or index not in came:
            continue
        at, ms = came[index]
        counts = seen["stats"][max(0, bisect.bisect_right(told, at) - 1)][1] if told else {}
        put_in = counts.get("filled", 0) - counts.get("dropped", 0)
        sample = (640 * index - put_in) * seen["rate"] / 16_000
        piece = int(np.searchsorted(ends, sample, side="right"))
        if sample < 0 or piece >= len(times):
            continue  # silence that the server put in: nobody said it
        spoken = times[piece] - (ends[piece] - sample) * 1e3 / seen["rate"]
        rows.append(
            {
                "total": shown - spoken, "sound": ms["sound"],
                "compute": ms["total"] - ms["sound"], "motion": ms["motion"],
                "render": ms["render"], "encode": ms["encode"],
                "transport": at - spoken - ms["total"], "player": shown - at,
            }
        )  # fmt: skip
    names = rows[0] if rows else ()
    return {
        "frames": len(rows),
        "ms": {
            name: {f"p{q}": float(np.percentile([r[name] for r in rows], q)) for q in (50, 95)}
            for name in names
        },
    }
