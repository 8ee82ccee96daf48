"""End-to-end latency of the live server on this machine, split by part; see tools/bench_page.

A server runs in a process of its own, a client without JAX speaks to it as a microphone does: 20 ms
of sound every 20 ms. The parts, per frame, in ms: ``wait`` for the hop and its look-ahead (p50 over
the frames of a hop); ``late``, until the machine got to it; ``motion``, ``render``, ``encode``;
``server``, from the frame's first sample to its encoded picture on the server's clock;
``transport``, half of the round trip of a ping that travels beside the pictures. A frame that was
not drawn is counted, not timed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import card as cards
import live_server
import numpy as np

from vasa_jax.runtime.machine import use_cores

ROOT = Path(__file__).resolve().parent.parent
SCREENS = {"page": (1280, 800), "phone": (390, 844)}
PARTS = ("sound", "late", "motion", "render", "encode", "total")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench_page", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--cores", type=int, default=0, help="for the server; 0 leaves all")
    parser.add_argument("--release", default="lite")
    parser.add_argument("--speech", help="default: the bundled one")
    parser.add_argument("--frame", choices=("full", "crop"), default="full")
    parser.add_argument("--hop", default="2")
    parser.add_argument("--ahead", default="1")
    parser.add_argument("--steps", help="of the full model; default: the student's")
    parser.add_argument(
        "--browser",
        action="store_true",
        help="headless Chromium with the speech as its microphone, to the screen",
    )
    parser.add_argument(
        "--pictures", metavar="DIR", help="with --browser: screenshots at desktop and phone width"
    )
    parser.add_argument("--name", default="page", help="first word of the card's file name")
    parser.add_argument("--out", default=str(ROOT / "experiments" / "benchmarks"), metavar="DIR")
    args = parser.parse_args()
    use_cores(args.cores)
    options = ["--release", args.release, "--hop", args.hop, "--ahead", args.ahead,
               *(["--steps", args.steps] if args.steps else [])]  # fmt: skip
    with live_server.running(*options) as (url, _):
        card = in_browser(url, args) if args.browser else asyncio.run(measure(url, args))
    text = describe_browser(card) if args.browser else describe(card)
    print(text)
    cards.write(args.out, f"{args.name}_{card['machine']['short']}_{card['date']}", text, card)
    return 0


async def measure(url: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything the card says."""
    import vasa_jax
    from vasa_jax.io.audio import read_audio
    from vasa_jax.runtime.machine import machine, versions
    from vasa_jax.serve.client import LiveClient

    speech = read_audio(args.speech or vasa_jax.example_speech())
    rows: list[dict[str, float]] = []
    trips: list[float] = []
    stats: dict[str, Any] = {}
    async with LiveClient(url) as client:
        began = time.perf_counter()
        start = {"source": "microphone", "frame": args.frame}
        async with client.session(**start) as session:
            ready, first = session.ready, None

            async def speak() -> None:
                await live_server.speak(session, speech, args.seconds, ping=True)
                await session.stop()

            talking = asyncio.create_task(speak())
            async for message in session:
                if message.type == "video":
                    first = first or (time.perf_counter() - began) * 1e3
                    rows.append(message.header["ms"] | {"drawn": message.header["drawn"]})
                elif message.type == "pong":
                    trips.append((time.monotonic() - message.header["t"]) * 1e3)
                elif message.type == "stats":
                    stats = message.header
            await talking
    settled = rows[25:] if len(rows) > 100 else rows  # the first second starts the threads
    drawn = [row for row in settled if row["drawn"]]
    if not drawn:
        raise SystemExit(f"bench_page: none of {len(rows)} frames was drawn; is the machine busy?")
    parts = {part: [row[part] for row in drawn] for part in PARTS}
    parts["transport"] = [trip / 2 for trip in trips]
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/bench_page", *sys.argv[1:]]),
        "commit": cards.commit(),
        "machine": machine(),
        "versions": versions(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "seconds": args.seconds,
        "size": [ready["width"], ready["height"]],
        "latency_declared_ms": ready["latency_ms"],
        "first_picture_ms": first,
        "frames": len(rows),
        "drawn": sum(row["drawn"] for row in rows),
        "fps": sum(row["drawn"] for row in rows) / args.seconds,
        "counts": stats.get("counts"),
        "ms": {
            part: {f"p{q}": float(np.percentile(values, q)) for q in (50, 95)}
            for part, values in parts.items()
        },
    }


def in_browser(url: str, args: argparse.Namespace) -> dict[str, Any]:
    """The same in a real page, and on to its screen; what ``browser_latency.py`` says."""
    import browser_latency

    import vasa_jax
    from vasa_jax.runtime.machine import machine, versions

    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit(f"bench_page: {browser_latency.HOW}") from None
    if browser_latency.browser_path() is None:
        raise SystemExit(f"bench_page: {browser_latency.HOW}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        speech = Path(args.speech or vasa_jax.example_speech())
        voice = browser_latency.write_voice(Path(folder) / "voice.wav", speech)
        browser = browser_latency.launch(playwright, voice)
        page = browser.new_context(permissions=["microphone"]).new_page()
        browser_latency.watch(page)
        page.goto(url)
        page.click("#start")
        page.wait_for_timeout(args.seconds * 1e3)
        found = browser_latency.latency(page)
        counts = page.evaluate("seen.stats.length ? seen.stats.at(-1)[1] : {}")
        for name, size in SCREENS.items() if args.pictures else ():
            page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
            page.wait_for_timeout(1500)
            page.screenshot(path=Path(args.pictures) / f"{name}.png", full_page=True)
        browser.close()
    if not found["frames"]:
        raise SystemExit("bench_page: no frame was shown; is the machine busy?")
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/bench_page", *sys.argv[1:]]),
        "commit": cards.commit(), "machine": machine(), "versions": versions(),
        "load_before": load, "seconds": args.seconds, "counts": counts, **found,
    }  # fmt: skip


IN_BROWSER = {
    "total": "from the microphone's sample to the screen", "sound": "hop and look-ahead",
    "compute": "then, until the server had the encoded picture", "motion": "  motion of the hop",
    "render": "  render of the frame", "encode": "  encode of the frame",
    "transport": "until its bytes were in the page", "player": "until the player showed it",
}  # fmt: skip


def describe_browser(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    machine, ms = card["machine"], card["ms"]
    return "\n".join(
        [
            f"# Live page: {ms['total']['p50']:.0f} ms from the microphone to the screen", "",
            f"`{card['command']}`, {card['date']}, commit {card['commit']}.", "",
            f"{machine['cores']} cores of {machine['cpu']} ({machine['device']}) for server and "
            f"browser (headless Chromium); load average before: {card['load_before']}. "
            f"{card['seconds']:g} s, {card['frames']} frames shown, counts {card['counts']}.", "",
            "| ms | p50 | p95 |", "|---|---|---|",
            *(f"| {IN_BROWSER[k]} | {v['p50']:.0f} | {v['p95']:.0f} |" for k, v in ms.items()), "",
        ]
    )  # fmt: skip


WORDS = {
    "sound": "hop and look-ahead: waiting for sound", "late": "waiting for the machine",
    "motion": "motion step of a hop", "render": "render of a frame", "encode": "encode of a frame",
    "total": "server, in all", "transport": "transport, one way",
}  # fmt: skip


def describe(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    machine, declared = card["machine"], card["latency_declared_ms"]
    both = card["ms"]["total"]["p50"] + card["ms"]["transport"]["p50"]
    lines = [
        f"# Live page: {both:.0f} ms from a sound to its picture at the client", "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}.", "",
        f"{machine['cores']} cores of {machine['cpu']} ({machine['device']}), load average before: "
        f"{card['load_before']}. {card['seconds']:g} s of microphone, "
        f"{card['size'][0]}x{card['size'][1]} px; declared {declared['declared']:g} ms "
        f"(hop {declared['hop']:g}, look-ahead {declared['ahead']:g}).", "",
        "| ms | p50 | p95 |", "|---|---|---|",
        *(f"| {WORDS[k]} | {v['p50']:.1f} | {v['p95']:.1f} |" for k, v in card["ms"].items()), "",
        f"Frames: {card['frames']}, drawn {card['drawn']} ({card['fps']:.1f} a second), "
        f"counts {card['counts']}. First picture {card['first_picture_ms']:.0f} ms after "
        "connecting. The player's buffer comes on top (the page shows it).", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
