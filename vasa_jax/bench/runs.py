"""The runs behind ``vasa-jax bench``: speech to file, live streams, starts of a process.

Everything is measured from outside of the parts, with the code that ``generate`` and ``serve`` run:
the sound is decoded, the head is put back into the whole picture, H.264 is encoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from vasa_jax.metrics import latency
from vasa_jax.runtime.machine import children_cpu_s, peak_memory_mb

Say = Callable[[str], None]

LATE_SHARE = 0.01  # of a stream's frames: more, and it no longer runs in time
SETTLE_FRAMES = FPS  # the first second of a stream starts threads and is not judged
START_SECONDS = 600.0  # a process that shows nothing for so long has failed


@contextlib.contextmanager
def speech_file(source: str | os.PathLike[str], seconds: float) -> Iterator[Path]:
    """A FLAC file of ``seconds`` of that speech, repeated where it is shorter."""
    import soundfile

    from vasa_jax.io.audio import read_audio

    samples = np.resize(read_audio(source), round(seconds * SAMPLE_RATE_HZ))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.flac"
        soundfile.write(path, samples, SAMPLE_RATE_HZ)
        yield path


def offline(talker: Any, speech: Path, frame: str, runs: int, say: Say) -> dict[str, Any]:
    """Speech to file as ``vasa-jax generate`` writes it, after one run that warms up."""
    from vasa_jax.generate.talker import RENDER_AHEAD, RENDER_BATCH
    from vasa_jax.io.audio import read_original, to_speech
    from vasa_jax.io.encoder_thread import EncoderThread
    from vasa_jax.io.video import VideoWriter

    chunk, rows, between = RENDER_BATCH * RENDER_AHEAD, [], []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs + 1):
            say(f"offline, {frame}: {f'run {run} of {runs}' if run else 'warming up'}")
            began = time.perf_counter()
            samples, rate = read_original(speech)
            frames = talker.generate(to_speech(samples, rate), seed=run, frame=frame)
            first, taken = None, []
            target = Path(folder) / f"{run}.mp4"
            with (
                VideoWriter(target, size=talker.frame_size(frame), audio=(samples, rate)) as writer,
                EncoderThread(writer) as encoder,
            ):
                for picture in frames:
                    first = first if first is not None else time.perf_counter() - began
                    encoder.put(picture)
                    taken.append(time.perf_counter())
                encoder.finish()
            seconds = time.perf_counter() - began
            report = talker.report()
            spent = report["ms_per_frame"] | {"encode": encoder.seconds * 1e3 / report["frames"]}
            assert first is not None  # speech has at least one frame
            if run:
                between.append(_per_frame(taken, chunk))
            rows.append({"fps": report["frames"] / seconds, "first_frame_ms": first * 1e3, **spent})
    kept = rows[1:]
    table = {key: statistics.median(row[key] for row in kept) for key in kept[0]}
    fps = [row["fps"] for row in kept]
    return {
        "size": list(talker.frame_size(frame)),
        "frames": report["frames"],
        "runs": runs,
        "fps": table.pop("fps"),
        "fps_range": [min(fps), max(fps)],
        "first_frame_ms": table.pop("first_frame_ms"),
        "ms_per_frame": table,
        "chunk": chunk,
        "frame_interval_ms": latency.percentiles(np.concatenate(between)),
    }


def live(
    talker: Any, samples: np.ndarray, frame: str, *, streams: int = 1, pace: bool = True
) -> dict[str, Any]:
    """``streams`` live streams at once, their pictures and sound encoded as the server does."""
    from vasa_jax.generate.live.stream import LiveConfig, live_engine

    config = LiveConfig(places=streams)
    engine = live_engine(talker.engine, config)
    engine.warm_up(talker)
    hop = config.hop

    async def all_streams() -> list[dict[str, Any]]:
        return await asyncio.gather(
            *(_stream(talker, samples, frame, config, seed, pace) for seed in range(streams))
        )

    rows = asyncio.run(all_streams())
    after = [latency.hop_times(row["after_sound_ms"][SETTLE_FRAMES:], hop) for row in rows]
    hops = np.concatenate(after)
    budget = hop * 1e3 / FPS
    judged = [
        np.asarray(row["drawn"][SETTLE_FRAMES:])
        & (np.asarray(row["after_sound_ms"][SETTLE_FRAMES:]) <= budget)
        for row in rows
    ]
    table: dict[str, Any] = {
        "streams": streams,
        "latency_declared_ms": engine.latency_ms,
        "hop": hop,
        "fps": float(np.mean([row["fps"] for row in rows])),
        "first_frame_ms": float(np.mean([row["first_ms"] for row in rows])),
        "ms": {
            part: float(np.mean([v for row in rows for v in row[part][SETTLE_FRAMES:]]))
            for part in ("motion", "render", "encode")
        },
    }
    if pace:
        table |= {
            "late_share": float(1.0 - np.concatenate(judged).mean()),
            "not_drawn": int(sum(np.sum(~np.asarray(row["drawn"])) for row in rows)),
            "hop_ms": latency.percentiles(hops),
            "missed": {str(r): latency.missed(hops, hop, r) for r in latency.RATES_FPS},
        }
    else:
        table["frame_interval_ms"] = latency.percentiles(
            np.concatenate([_per_frame(row["ready_s"][SETTLE_FRAMES:], hop) for row in rows])
        )
    return table


def _per_frame(ready_s: list[float], hop: int) -> np.ndarray:
    """Time from hop to hop (or chunk to chunk) being ready, over their frames, ms per frame."""
    return np.diff(np.asarray(ready_s[hop - 1 :: hop])) * 1e3 / hop


async def _stream(
    talker: Any, samples: np.ndarray, frame: str, config: Any, seed: int, pace: bool
) -> dict[str, Any]:
    """One stream from its start to its end."""
    from vasa_jax.serve import fmp4

    video, audio = fmp4.VideoTrack(talker.frame_size(frame)), fmp4.AudioTrack()

    def encode(made: Any) -> float:
        began = time.perf_counter()
        video.add(made.picture, made.index)
        audio.add(made.sound)
        return (time.perf_counter() - began) * 1e3

    pieces = np.array_split(samples, max(1, len(samples) // SAMPLES_PER_FRAME))
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    row: dict[str, Any] = {
        k: [] for k in ("after_sound_ms", "drawn", "ready_s", "motion", "render", "encode")
    }
    async with talker.stream(pieces, seed=seed, frame=frame, pace=pace, live=config) as stream:
        async for made in stream:
            waiting = time.perf_counter()
            row["encode"].append(await loop.run_in_executor(None, encode, made))
            now = time.perf_counter()
            row["ready_s"].append(now - began)
            row["drawn"].append(made.drawn)
            row["motion"].append(made.ms["motion"] / config.hop)
            row["render"].append(made.ms["render"])
            total = made.ms.get("total", made.ms["sound"])
            row["after_sound_ms"].append(total - made.ms["sound"] + (now - waiting) * 1e3)
    settled = row["ready_s"][SETTLE_FRAMES:]
    drawn = sum(row["drawn"][SETTLE_FRAMES + 1 :])
    row["fps"] = drawn / (settled[-1] - settled[0]) if len(settled) > 1 else 0.0
    row["first_ms"] = row["ready_s"][0] * 1e3
    return row


def sustained_streams(
    talker: Any, samples: np.ndarray, frame: str, most: int, say: Say
) -> dict[str, Any]:
    """One stream, two, three, ... at the sound's pace, until frames come late."""
    rows: list[dict[str, Any]] = []
    while len(rows) < most:
        say(f"live: {len(rows) + 1} at once")
        rows.append(live(talker, samples, frame, streams=len(rows) + 1))
        if rows[-1]["late_share"] > LATE_SHARE:
            break
    count = latency.most_in_time([row["late_share"] for row in rows], LATE_SHARE)
    return {"in_time": count, "tried": len(rows), "at_limit": count == most, "runs": rows}


def starts(portrait: str, speech: Path, release: str, runs: int, say: Say) -> dict[str, Any]:
    """Seconds from starting ``vasa-jax generate`` to its first frame: nothing cached, then all.

    Each start is a process of its own, stopped at its first frame; its cache is a new folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        say("start with an empty cache (compiles)")
        cold, cold_cpu = _start(portrait, speech, release, Path(folder))
        warm = []
        for run in range(runs):
            say(f"start with a filled cache: {run + 1} of {runs}")
            warm.append(_start(portrait, speech, release, Path(folder)))
    return {
        "cold_s": cold,
        "cold_cpu_s": cold_cpu,
        "warm_s": statistics.median(wall for wall, _ in warm),
        "warm_cpu_s": statistics.median(cpu for _, cpu in warm),
        "warm_range_s": [min(warm)[0], max(warm)[0]],
        "memory_mb": peak_memory_mb(children=True),
    }


def _start(portrait: str, speech: Path, release: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first frame, and processor seconds until the process had ended."""
    command = [
        sys.executable, "-m", "vasa_jax.cli.main", "generate", portrait, str(speech),
        "-o", str(folder / "out.mp4"), "--release", release,
    ]  # fmt: skip
    began, spent = time.perf_counter(), children_cpu_s()
    first = None
    process = subprocess.Popen(
        command, env=os.environ | {"VASA_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            if line.startswith("render "):  # said when the first frame was handed to the encoder
                first = time.perf_counter() - began
                break
            said.append(line.strip())
            if time.perf_counter() - began > START_SECONDS:
                break
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(60)
    if first is None:
        raise UserError(f"vasa-jax generate showed no frame: {' '.join(said[-3:])}")
    return first, children_cpu_s() - spent
