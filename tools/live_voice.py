"""Speaks what a synthesiser says, while it says it; see tools/live_voice.

Any iterator of samples will do for ``Talker.stream``; here a synthesiser says one sentence after
the other, and the face begins with the first while the second is being made.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator

import numpy as np

import vasa_jax
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ
from vasa_jax.io.video import VideoWriter
from vasa_jax.runtime import compile_cache


def sentences(text: str, voice: str) -> Iterator[np.ndarray]:
    """Samples at 16 kHz of one sentence after the other, each made when it is asked for."""
    from vasa_jax.synth.speech.voice import speak

    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        if sentence:
            yield speak(sentence, voice).samples


async def talk(args: argparse.Namespace) -> int:
    talker = vasa_jax.Talker(args.release, args.portrait or vasa_jax.example_portrait())
    frames, sound, first = [], [], None
    async with talker.stream(sentences(args.text, args.voice), frame="crop") as stream:
        async for frame in stream:
            if frame.speaking and first is None:
                first = frame
                print(f"first spoken frame at {frame.time:.2f} s, made {frame.ms['total']:.0f} ms "
                      "after its first sample", flush=True)  # fmt: skip
            frames.append(frame.picture)
            sound.append(frame.sound)
        print(f"{stream.counts}, declared latency {stream.latency_ms:.0f} ms")
    size = frames[0].shape[1], frames[0].shape[0]
    with VideoWriter(args.output, size=size, audio=(np.concatenate(sound), SAMPLE_RATE_HZ)) as out:
        for picture in frames:
            out.write(picture)
    print(args.output)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/live_voice", description=__doc__.split("\n")[0])
    parser.add_argument("text", help="what to say")
    parser.add_argument("-o", "--output", default="out/voice.mp4")
    parser.add_argument("--voice", default="en-us", help="of espeak-ng, or joe (en-us)")
    parser.add_argument("--portrait", help="default: the bundled one")
    parser.add_argument("--release", default="lite")
    args = parser.parse_args()
    compile_cache.enable()
    try:
        return asyncio.run(talk(args))
    except UserError as error:
        print(f"live_voice: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
