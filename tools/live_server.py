"""A live server in a process of its own, and a microphone that speaks to it; for measuring both."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PIECE = 320  # samples that a microphone of 16 kHz has every 20 ms


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """URL and process of ``vasa-jax serve`` with these options, on a free port; ended afterwards.

    Raises RuntimeError where it does not start.
    """
    command = [sys.executable, "-m", "vasa_jax", "serve", "--port", "0", *options]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+?:\d+", server.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        yield found.group(), server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def speak(session: Any, speech_S: np.ndarray, seconds: float, *, ping: bool = False) -> None:
    """Speech at 16 kHz, over and over, at the pace of time; ``ping`` asks twice a second."""
    began = time.monotonic()
    for n in range(int(seconds * 50)):
        await session.say(np.take(speech_S, range(n * PIECE, (n + 1) * PIECE), mode="wrap"))
        if ping and n % 25 == 0:
            await session.ping()
        await asyncio.sleep(max(0.0, began + (n + 1) / 50 - time.monotonic()))
