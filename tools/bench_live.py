"""Frames per second of the whole way on one machine; see tools/bench_live.

The process is pinned to ``--cores`` cores before anything starts its threads. The first run warms
up (its compilations are reported apart); the runs after it are timed, speech in, file out. Render
is timed per batch as the talker makes it; encoding runs in a thread of its own, as in
``vasa-jax generate``, and is also timed alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path

import card as cards

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench_live", description=__doc__.split("\n")[0])
    parser.add_argument("--cores", type=int, default=2, help="0 leaves all (default 2)")
    parser.add_argument("--release", default="lite")
    parser.add_argument("--portrait", help="default: the bundled one")
    parser.add_argument("--speech", help="default: the bundled one")
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech, repeated if short")
    parser.add_argument("--runs", type=int, default=3, help="timed runs (default 3)")
    parser.add_argument("--frame", choices=("crop", "full"), default="crop")
    parser.add_argument("--steps", type=int, help="denoising steps (the release's own)")
    parser.add_argument("--name", default="live", help="first word of the card's file name")
    parser.add_argument("--out", default=str(ROOT / "experiments" / "benchmarks"), metavar="DIR")
    args = parser.parse_args()
    if args.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    card = measure(args)
    text = describe(card)
    print(text)
    cards.write(args.out, f"{args.name}_{card['machine']['short']}_{card['date']}", text, card)
    return 0


def measure(args: argparse.Namespace) -> dict:
    """Everything the card says."""
    import numpy as np

    import vasa_jax
    from vasa_jax.core import compile_cache
    from vasa_jax.io.audio import read_audio
    from vasa_jax.io.video import VideoWriter

    compile_cache.enable()
    speech = read_audio(args.speech or vasa_jax.example_speech())
    speech = np.resize(speech, round(args.seconds * 16000)).astype(np.float32)
    began = time.perf_counter()
    release = vasa_jax.load_release(args.release)
    talker = vasa_jax.Talker(release, args.portrait or vasa_jax.example_portrait())
    ready = time.perf_counter() - began
    options = {"frame": args.frame, "steps": args.steps}
    first_speech = speech[: 16000 * 3]
    began = time.perf_counter()
    warm_frames = list(talker.generate(first_speech, **options))
    warm = time.perf_counter() - began
    compilations = talker.report()["compilations"]

    runs, gaps = [], []
    size = talker.frame_size(args.frame)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.runs):
            target = Path(folder) / f"{i}.mp4"
            began = time.perf_counter()
            frames = talker.generate(speech, seed=i, **options)
            motion_done = time.perf_counter()
            with VideoWriter(target, size=size, audio=(speech, 16000)) as writer:
                encoder = _Encoder(writer)
                last = time.perf_counter()
                for frame in frames:
                    encoder.put(frame)
                    now = time.perf_counter()
                    gaps.append(now - last)
                    last = now
                encoder.finish()
            total = time.perf_counter() - began
            report = talker.report()
            runs.append(
                {
                    "frames": report["frames"],
                    "fps": report["frames"] / total,
                    "seconds": total,
                    "first_frame_ms": (motion_done - began) * 1e3,
                    **{f"{k}_ms": v for k, v in report["ms_per_frame"].items()},
                }
            )
        began = time.perf_counter()
        with VideoWriter(Path(folder) / "e.mp4", size=size, audio=(speech, 16000)) as writer:
            for frame in warm_frames:
                writer.write(frame)
        encode_ms = (time.perf_counter() - began) * 1e3 / len(warm_frames)
    after = talker.report()["compilations"]
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/bench_live", *sys.argv[1:]]),
        "commit": cards.commit(),
        "machine": _machine(args.cores),
        "versions": _versions(),
        "release": {"name": release.name, "sha256": release.sha256},
        "size": list(size),
        "steps": args.steps,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "ready_seconds": ready,
        "warm_up_seconds": warm,
        "compilations": {"ready_and_warm_up": compilations, "later": after - compilations},
        "runs": runs,
        "frame_gap_ms": {f"p{q}": float(np.percentile(gaps, q) * 1e3) for q in (50, 95, 99)},
        "encode_alone_ms": encode_ms,
        "memory_mb": _peak_memory_mb(),
    }


class _Encoder:
    """Encodes in a thread, as vasa-jax generate does."""

    def __init__(self, writer) -> None:
        self._queue: queue.Queue = queue.Queue(maxsize=8)
        self._writer = writer
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            self._writer.write(frame)

    def put(self, frame) -> None:
        self._queue.put(frame)

    def finish(self) -> None:
        self._queue.put(None)
        self._thread.join()


def _machine(cores: int) -> dict:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    import jax

    device = jax.devices()[0]
    used = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "cpu" if device.platform == "cpu" else device.device_kind.replace(" ", "-").lower()
    return {
        "cpu": model,
        "cores": used,
        "device": device.device_kind,
        "short": f"{kind}{used}" if kind == "cpu" else kind,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict:
    from importlib import metadata

    names = ("vasa-jax", "jax", "jaxlib", "flax", "numpy", "av")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def describe(card: dict) -> str:
    """The card in Markdown."""
    runs, machine = card["runs"], card["machine"]
    fps = sorted(r["fps"] for r in runs)
    middle = fps[len(fps) // 2]

    def spread(key: str) -> str:
        values = sorted(r[key] for r in runs)
        return f"{values[len(values) // 2]:.1f} ({values[0]:.1f} .. {values[-1]:.1f})"

    gap = card["frame_gap_ms"]
    lines = [
        f"# Live speed: {middle:.1f} frames a second",
        "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}.",
        "",
        f"{machine['cores']} cores of {machine['cpu']} ({machine['system']}, {machine['device']}); "
        f"load average before: {card['load_before']}. "
        f"Release {card['release']['name']} ({card['release']['sha256'][:12]}), "
        f"{card['size'][0]}x{card['size'][1]} px, {runs[0]['frames']} frames a run, "
        f"{len(runs)} runs after a warm-up.",
        "",
        "| what | median (lowest .. highest) |",
        "|---|---|",
        f"| frames per second, speech to file | {spread('fps')} |",
        f"| motion, ms per frame | {spread('motion_ms')} |",
        f"| render, ms per frame | {spread('render_ms')} |",
        f"| paste, ms per frame | {spread('paste_ms')} |",
        f"| encode alone, ms per frame | {card['encode_alone_ms']:.1f} |",
        f"| whole motion before the first frame, ms | {spread('first_frame_ms')} |",
        f"| time between frames p50 / p95 / p99, ms | {gap['p50']:.1f} / {gap['p95']:.1f} / "
        f"{gap['p99']:.1f} |",
        f"| load release and portrait, s | {card['ready_seconds']:.1f} |",
        f"| first 3 s of speech, compiling or from the cache, s | {card['warm_up_seconds']:.1f} |",
        f"| compilations until warm / afterwards | {card['compilations']['ready_and_warm_up']} / "
        f"{card['compilations']['later']} |",
        f"| peak memory, MB | {card['memory_mb'] or 0:.0f} |",
        "",
        "Frames come in batches, hence the uneven time between them. Versions: "
        + ", ".join(f"{k} {v}" for k, v in card["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
