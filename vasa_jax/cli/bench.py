"""``vasa-jax bench``: what a user gets on this machine, end to end."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

from vasa_jax.core.errors import UserError

DESCRIPTION = """\
Measure what a user gets here, end to end: the sound is decoded, the head is put back into the
picture, H.264 is encoded. Offline, speech to file. Live, at the sound's pace and as fast as it
goes, then as many streams at once as run in time. Starts of a fresh process, with nothing and with
everything cached. Measure on a machine that does nothing else.
"""

EPILOG = """\
A hop is the frames that a live stream makes at once. Its time runs from the moment its sound was
there until its last picture is encoded; at R frames a second a hop of n frames misses its deadline
beyond n / R seconds. A stream runs in time while at most one frame in a hundred is late.

examples:
  vasa-jax bench --quick
  vasa-jax bench --cores 2 --floor --card experiments/benchmarks
  vasa-jax bench --only floor --config configs/face_512.py --json
"""

SECTIONS = ("offline", "live", "streams", "start", "floor")
QUICK = {"seconds": 4.0, "runs": 1, "streams": 2}
FULL = {"seconds": 12.0, "runs": 3, "streams": 16}
STREAM_SECONDS = 6.0  # of each count of streams at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--release", default="lite", metavar="NAME|DIR", help="weights (lite)")
    parser.add_argument("--portrait", help="a picture with a face (the bundled one)")
    parser.add_argument("--speech", help="a sound file (the bundled one)")
    parser.add_argument("--seconds", type=float, help="of speech per run (12; quick: 4)")
    parser.add_argument("--runs", type=int, help="timed runs, medians are told (3; quick: 1)")
    parser.add_argument("--streams", type=int, help="most streams at once (16; quick: 2)")
    parser.add_argument("--cores", type=int, default=0, help="use only so many (all)")
    parser.add_argument("--quick", action="store_true", help="short runs, for a first look")
    parser.add_argument("--floor", action="store_true", help="also: how fast could each part be?")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="only this section; may be repeated"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE.py",
        help="with --floor: count this configuration's parts, too; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--card", metavar="DIR", help="also write a card there, .md and .json")
    parser.add_argument(
        "--name", default="bench", metavar="WORD", help="first word of the card's file name (bench)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; what can be refused is refused before anything is measured."""
    size = QUICK if args.quick else FULL
    seconds = size["seconds"] if args.seconds is None else args.seconds
    runs = int(size["runs"] if args.runs is None else args.runs)
    streams = int(size["streams"] if args.streams is None else args.streams)
    for name, value, low, high in (
        ("seconds", seconds, 2, 600), ("runs", runs, 1, 100), ("streams", streams, 1, 256),
        ("cores", args.cores, 0, 4096),
    ):  # fmt: skip
        if not low <= value <= high:
            raise UserError(f"--{name}: {value:g} is outside {low} to {high}")
    wanted = args.only or [s for s in SECTIONS if s != "floor" or args.floor or args.config]
    if args.card and Path(args.card).exists() and not Path(args.card).is_dir():
        raise UserError(f"--card: {args.card} is not a folder")
    if not args.name or Path(args.name).name != args.name:
        raise UserError(f"--name: {args.name!r} is no part of a file name")

    from vasa_jax.runtime.machine import use_cores

    use_cores(args.cores)
    report = measure(args, wanted, seconds=seconds, runs=runs, streams=streams)
    text = describe(report)
    print(json.dumps(report) if args.json else text)
    if args.card:
        _write_card(Path(args.card), args.name, report, text)
    return 0


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def measure(
    args: argparse.Namespace, wanted: list[str], *, seconds: float, runs: int, streams: int
) -> dict[str, Any]:
    """Everything that the report says."""
    import vasa_jax
    from vasa_jax.bench import floor as bench_floor
    from vasa_jax.bench import runs as bench_runs
    from vasa_jax.generate.engine import engine_for
    from vasa_jax.generate.talker import Talker
    from vasa_jax.io.audio import read_audio
    from vasa_jax.runtime import machine

    portrait = args.portrait or str(vasa_jax.example_portrait())
    source = args.speech or vasa_jax.example_speech()
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["vasa-jax", *sys.argv[1:]]),
        "machine": machine.machine(),
        "versions": machine.versions(),
        "seconds": seconds,
        "runs": runs,
    }
    with bench_runs.speech_file(source, seconds) as speech:
        if "start" in wanted:  # first: this process does not compute yet
            report["start"] = bench_runs.starts(portrait, speech, args.release, runs, say)
        if set(wanted) - {"start"}:
            release = vasa_jax.load_release(args.release)
            report["release"] = {"name": release.name, "sha256": release.sha256}
        samples = read_audio(speech)
        if {"offline", "live", "streams"} & set(wanted):
            talker = Talker(release, portrait)
        if "offline" in wanted:
            report["offline"] = {
                frame: bench_runs.offline(talker, speech, frame, runs, say)
                for frame in ("full", "crop")
            }
        if "live" in wanted:
            report["live"] = {}
            for frame in ("full", "crop"):
                say(f"live, {frame}: one stream at the sound's pace")
                paced = bench_runs.live(talker, samples, frame)
                say(f"live, {frame}: one stream, as fast as it goes")
                free = bench_runs.live(talker, samples, frame, pace=False)
                report["live"][frame] = {"paced": paced, "free": free}
        if "streams" in wanted:
            part = samples[: round(STREAM_SECONDS * 16_000)]
            report["streams"] = bench_runs.sustained_streams(talker, part, "full", streams, say)
        report["memory_mb"] = machine.peak_memory_mb()
        report["device_memory_mb"] = machine.device_memory_mb()
        if "floor" in wanted:
            floors = [bench_floor.release_floor(engine_for(release), say)]
            report["floor"] = floors + [bench_floor.config_floor(c, say) for c in args.config]
    return report


def describe(report: dict[str, Any]) -> str:
    """The report in Markdown, readable as it is."""
    from vasa_jax.bench import floor as bench_floor

    machine, release = report["machine"], report.get("release")
    of = f"Release {release['name']} ({release['sha256'][:12]}), " if release else ""
    lines = [
        f"# Speed on {machine['device']}, {machine['cores']} cores", "",
        f"`{report['command']}`, {report['date']}.", "",
        f"{machine['cpu']}, {machine['system']}; load average before: {machine['load']}. "
        f"{of}{report['seconds']:g} s of speech, {report['runs']} timed runs, medians.", "",
    ]  # fmt: skip
    rows: list[tuple[str, str]] = []
    for frame, row in report.get("offline", {}).items():
        low, high = row["fps_range"]
        where = f"{frame}, {row['size'][0]}x{row['size'][1]}"
        parts = ", ".join(f"{k} {v:.1f}" for k, v in row["ms_per_frame"].items())
        gap = row["frame_interval_ms"]
        steady = " / ".join(f"{gap[p]:.1f}" for p in ("p50", "p95", "p99")) if gap else "-"
        rows += [
            (
                f"offline fps, speech to file, {where}",
                f"{row['fps']:.1f} ({low:.1f} to {high:.1f})",
            ),
            ("  first frame after the sound was given, ms", f"{row['first_frame_ms']:.0f}"),
            (f"  time of a chunk of {row['chunk']} p50 / p95 / p99, ms per frame", steady),
            ("  ms per frame (parts overlap)", parts),
        ]
    for frame, live in report.get("live", {}).items():
        rows += _live_rows(frame, live)
    if "streams" in report:
        found = report["streams"]
        more = " or more" if found["at_limit"] else ""
        late = ", ".join(
            f"{r['streams']}: {100 * r['late_share']:.1f} % late" for r in found["runs"]
        )
        rows.append(("streams in time at 25 fps", f"{found['in_time']}{more} ({late})"))
    if "start" in report:
        start = report["start"]
        low, high = start["warm_range_s"]
        rows += [
            ("start to first frame, nothing cached, s", f"{start['cold_s']:.1f}"),
            ("start to first frame, cached, s", f"{start['warm_s']:.2f} ({low:.2f} to {high:.2f})"),
            (
                "  processor time of both, s",
                f"{start['cold_cpu_s']:.1f}, {start['warm_cpu_s']:.2f}",
            ),
            ("largest memory of generate, MB", _memory(start["memory_mb"])),
        ]
    rows += [("largest memory of this bench, MB", _memory(report["memory_mb"]))]
    if report["device_memory_mb"] is not None:
        rows += [("  of the device, MB", _memory(report["device_memory_mb"]))]
    lines += ["| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    for floor in report.get("floor", []):
        lines += bench_floor.describe(floor)
    lines.append("Versions: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + ".")
    return "\n".join([*lines, ""])


def _live_rows(frame: str, live: dict[str, Any]) -> list[tuple[str, str]]:
    paced, free = live["paced"], live["free"]
    hop, ms, gap = paced["hop"], paced["hop_ms"], free["frame_interval_ms"]
    parts = ", ".join(f"{k} {v:.1f}" for k, v in paced["ms"].items())
    missed = ", ".join(f"{rate}: {100 * share:.1f} %" for rate, share in paced["missed"].items())
    return [
        (f"live fps, {frame}, at the sound's pace (25 is all)", f"{paced['fps']:.1f}"),
        (f"  time of a hop of {hop} frames p50 / p95 / p99, ms",
         f"{ms['p50']:.1f} / {ms['p95']:.1f} / {ms['p99']:.1f}"),
        ("  the same per frame, ms",
         " / ".join(f"{ms[p] / hop:.1f}" for p in ("p50", "p95", "p99"))),
        ("  hops that miss their deadline at 25, 40, 60 fps", missed),
        ("  frames not drawn", str(paced["not_drawn"])),
        (f"  first frame, ms ({paced['latency_declared_ms']:g} declared)",
         f"{paced['first_frame_ms']:.0f}"),
        ("  ms per frame (parts overlap)", parts),
        (f"live fps, {frame}, that the machine can sustain", f"{free['fps']:.1f}"),
        ("  between frames p50 / p95 / p99, ms",
         f"{gap['p50']:.1f} / {gap['p95']:.1f} / {gap['p99']:.1f}"),
    ]  # fmt: skip


def _memory(value: float | None) -> str:
    return "not told" if value is None else f"{value:.0f}"


def _write_card(folder: Path, name: str, report: dict[str, Any], text: str) -> None:
    """``NAME_DEVICE_DATE.md`` and ``.json``; their paths on stderr."""
    from vasa_jax.io.atomic import replacing

    stem = f"{name}_{report['machine']['short']}_{report['date']}"
    for ending, content in ((".md", text), (".json", json.dumps(report, indent=1) + "\n")):
        path = folder / f"{stem}{ending}"
        with replacing(path) as part:
            part.write_text(content, encoding="utf-8")
        say(os.fspath(path))
