"""Samplers of a release against each other; see tools/bench_samplers.

*Distance*: root mean square gap, in deviations of the data, between windows sampled with few steps
and the same windows (same noise, no past) sampled with ``--reference`` steps of DDIM. Only
deterministic samplers have one: they all solve the same equation.

*Student*: the first row, if the release has one or ``--student RUN`` names one: sampled as it was
distilled, and compared with the reference at the scale of guidance that was distilled into it.

*Sync and motion*: whole recordings, all at once as streams of one batch. The motion moves the
release's mean head and the measures of ``metrics/`` read the head model's own landmarks, so neither
renderer nor landmark detector adds its own error; the same measures on pictures are lower
(``vasa-jax evaluate talk``).
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tools import card as cards
from vasa_jax.checkpoint.release import load_release
from vasa_jax.checkpoint.train_state import read_params
from vasa_jax.core.config import from_json
from vasa_jax.core.types import SAMPLE_RATE_HZ, Controls
from vasa_jax.face.head import head as heads
from vasa_jax.generate import rolling
from vasa_jax.generate.engine import Engine
from vasa_jax.generate.offline import GenerateDefaults, roll_chunk, speech_features
from vasa_jax.generate.rolling import SAMPLERS, TEMPERATURE, RollingConfig, sampler_of
from vasa_jax.io.audio import read_audio
from vasa_jax.metrics import motion as motion_metrics
from vasa_jax.metrics import phonemes, sync
from vasa_jax.runtime import compile_cache
from vasa_jax.runtime.machine import machine, versions

ROOT = Path(__file__).resolve().parent.parent
STUDENT = "student"
SHOWN = ("correlation", "lag_frames", "closures", "closures_chance", "rest_ratio", "blinks",
         "head_motion_deg", "head_jitter_deg")  # fmt: skip


def main() -> int:
    args = parse()
    if args.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores :])
    compile_cache.enable()
    bench = Bench(args)
    unfinished = Unfinished(args.out / f"{args.name}.unfinished.jsonl", bench.fingerprint())
    rows: list[dict[str, Any]] = []
    settings: list[tuple] = [(STUDENT, 0, 0.0, 0.0)] if bench.student is not None else []
    settings += itertools.product(args.samplers, args.steps, args.guidance, args.temperature)
    for setting in settings:
        row = unfinished.get(setting)
        if row is None:
            row = bench.student_row() if setting[0] == STUDENT else bench.row(*setting)
            unfinished.add(setting, row)
        rows.append(row)
        print(line(row), flush=True)
    card = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/bench_samplers", *map(os.path.basename, sys.argv[1:])]),
        "commit": cards.commit(),
        "machine": machine(), "versions": versions(),
        "release": {"name": bench.release.name, "sha256": bench.release.sha256},
        "motion_run_step": bench.run_step, "student_run_step": bench.student_step,
        "recordings": [p.name for p in args.speech], "seconds": args.seconds,
        "rows": rows,
    }  # fmt: skip
    stem = f"{args.name}_{card['machine']['short']}_{card['date']}"
    cards.write(args.out, stem, describe(card), card)
    draw(rows, args.out / f"{stem}.png")
    unfinished.path.unlink()
    return 0


class Unfinished:
    """Rows of an interrupted bench; the same command goes on where it stopped."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path, self.fingerprint = path, fingerprint
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, dict[str, Any]] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for number, text in enumerate(lines):
            try:
                kept = json.loads(text)
            except json.JSONDecodeError:  # stopped while it wrote
                if number == len(lines) - 1:
                    break
                raise
            if kept["of"] == fingerprint:
                self.rows[json.dumps(kept["setting"])] = kept["row"]

    def get(self, setting: tuple) -> dict[str, Any] | None:
        return self.rows.get(json.dumps(setting))

    def add(self, setting: tuple, row: dict[str, Any]) -> None:
        kept = {"of": self.fingerprint, "setting": setting, "row": row}
        with self.path.open("a") as file:
            file.write(json.dumps(kept) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench_samplers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--release", default="lite")
    parser.add_argument("--motion", type=Path, help="run folder whose motion weights replace its")
    parser.add_argument("--student", type=Path, help="run folder of a distilled student")
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="recordings")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16, 50])
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.5], help="of audio")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[TEMPERATURE],
        help="of the noise that the mouth starts from",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=8.0, help="of each recording")
    parser.add_argument("--reference", type=int, default=1000, help="steps; 0: no distance")
    parser.add_argument("--hop", type=int, default=50, help="frames per window (default 50)")
    parser.add_argument("--ahead", type=int, help="frames of sound after a hop (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2, help="0 leaves all (default 2)")
    parser.add_argument("--name", default="samplers", help="first word of the card's file name")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "benchmarks")
    args = parser.parse_args()
    if any(p.is_dir() for p in args.speech):
        endings = {".flac", ".wav", ".mp3", ".m4a", ".ogg"}
        files = [sorted(p.iterdir()) if p.is_dir() else [p] for p in args.speech]
        args.speech = [f for fs in files for f in fs if f.suffix in endings]
    return args


class Bench:
    """One release and one set of recordings."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.release = load_release(args.release)
        self.engine = Engine(self.release)
        self.model, self.params = self.engine.motion_config, self.engine.motion_params
        self.run_step = None
        if args.motion is not None:
            self.run_step, self.params = read_params(args.motion)
        # (weights, how they are sampled, the scale of guidance that is inside them)
        self.student: tuple[Any, GenerateDefaults, float] | None = None
        self.student_step = None
        if args.student is not None:
            self.student_step, weights = read_params(args.student)
            config = json.loads((args.student / "config.json").read_text())
            self.student = self._student(weights, config)
        elif "student" in self.release.params:
            self.student = self._student(
                self.release.params["student"], self.release.config["student"]
            )
        wanted = round(args.seconds * SAMPLE_RATE_HZ)
        sounds = [np.resize(read_audio(p), wanted).astype(np.float32) for p in args.speech]
        self.phonemes = [phonemes.recognise(s) for s in sounds]
        self.features = np.stack([speech_features(self.model, s) for s in sounds])
        mean_head = functools.partial(heads.mean_landmarks, self.engine.head)
        self.landmarks = jax.jit(jax.vmap(mean_head))
        self.references: dict[tuple[float, float], np.ndarray] = {}

    @staticmethod
    def _student(weights: Any, config: dict[str, Any]) -> tuple[Any, GenerateDefaults, float]:
        how = from_json(GenerateDefaults, config["generate"])
        return weights, how, float(config["audio_guidance"])

    def fingerprint(self) -> dict[str, Any]:
        """What rows must share to stand in one table."""
        a = self.args
        return {
            "release": self.release.sha256, "run_step": self.run_step,
            **({} if self.student_step is None else {"student_step": self.student_step}),
            "motion": str(a.motion), "recordings": [p.name for p in a.speech],
            "seconds": a.seconds, "reference": a.reference, "hop": a.hop, "ahead": a.ahead,
            "seed": a.seed, "cores": a.cores,
        }  # fmt: skip

    def roll(
        self, sampler: str, steps: int, scale: float, temperature: float,
        features_BTD: np.ndarray, params: Any = None,
    ) -> np.ndarray:  # fmt: skip
        """Normalised motion (B, T, M) of B recordings at once, T a multiple of the hop or cut."""
        cfg = RollingConfig(
            hop=self.args.hop, ahead=self.args.ahead, sampler=sampler, steps=steps,
            guided=("audio",) if scale else (), temperature=temperature,
        )  # fmt: skip
        count, total, _ = features_BTD.shape
        hops = -(-total // cfg.hop)
        length = hops * cfg.hop + cfg.lookahead(self.model)
        features = np.zeros((count, length, features_BTD.shape[-1]), np.float32)
        features[:, :total] = features_BTD
        valid = np.broadcast_to(np.arange(length) < total, (count, length))
        seeds = jnp.arange(count) + self.args.seed
        _, motion = roll_chunk(
            self.model, cfg, self.params if params is None else params,
            rolling.init_state(self.model, seeds), features, valid,
            Controls.none(count, length), {"audio": jnp.float32(scale)} if scale else {},
        )  # fmt: skip
        return np.asarray(motion)[:, :total]

    def window(self) -> np.ndarray:
        """The features of one window from the middle of each recording."""
        hop = self.args.hop
        start = (self.features.shape[1] - hop) // 2
        return self.features[:, start : start + hop]

    def reference(self, scale: float, temperature: float) -> np.ndarray:
        if (scale, temperature) not in self.references:
            self.references[scale, temperature] = self.roll(
                "ddim", self.args.reference, scale, temperature, self.window()
            )
        return self.references[scale, temperature]

    def row(self, sampler: str, steps: int, scale: float, temperature: float) -> dict[str, Any]:
        """Everything about one setting."""
        return self._row(sampler, steps, scale, temperature, scale, None)

    def student_row(self) -> dict[str, Any]:
        assert self.student is not None
        weights, how, distilled = self.student
        row = self._row(how.sampler, how.steps, 0.0, how.temperature, distilled, weights)
        return row | {"sampler": STUDENT}

    def _row(
        self, sampler: str, steps: int, scale: float, temperature: float,
        reference_scale: float, params: Any,
    ) -> dict[str, Any]:  # fmt: skip
        def made(features: np.ndarray) -> np.ndarray:
            return self.roll(sampler, steps, scale, temperature, features, params)

        space = self.model.motion_space
        step = sampler_of(sampler, space)
        row: dict[str, Any] = {
            "sampler": sampler, "steps": steps, "guidance": scale,
            "temperature": temperature, "distance": None,
            "evaluations": step.evaluations * steps,
        }  # fmt: skip
        if self.args.reference and step.order > 0:
            gap = made(self.window()) - self.reference(reference_scale, temperature)
            row["distance"] = float(np.sqrt(np.mean(np.square(gap))))
        clips: list[dict[str, float]] = []
        named = space.cfg.kind == "arkit"  # a code moves no mean head
        for motion, heard in zip(made(self.features), self.phonemes, strict=True):
            if not named:
                break
            physical = np.asarray(self.engine.stats.denormalize(motion))
            marks = np.asarray(self.landmarks(physical))
            moved = motion_metrics.measure(marks)
            clips.append(
                sync.measure(marks, heard) | {k: moved[k] for k in SHOWN if k in moved}
                | {"blinks": moved["blinks_per_minute"]}
            )  # fmt: skip
        row["clips"] = clips
        for key in SHOWN:
            row[key] = float(np.nanmean([c[key] for c in clips])) if named else None
        row["lag_distance"] = (
            float(np.nanmean([abs(c["lag_frames"]) for c in clips])) if named else None
        )
        one = self.window()[:1]
        made(one)
        spent = []
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            made(one)
            spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        row["ms_per_window"], row["cpu_ms_per_window"] = (1e3 * np.median(spent, axis=0)).tolist()
        return row


COLUMNS = (
    ("sampler", "sampler", "{}"), ("steps", "steps", "{}"), ("guidance", "guidance", "{}"),
    ("temperature", "temp", "{}"), ("evaluations", "calls", "{}"),
    ("distance", "distance", "{:.3f}"),
    ("correlation", "sync", "{:.3f}"), ("lag_distance", "lag", "{:.1f}"),
    ("closures", "closures", "{:.2f}"), ("rest_ratio", "rest", "{:.2f}"),
    ("blinks", "blinks/min", "{:.1f}"), ("head_motion_deg", "head deg/frame", "{:.2f}"),
    ("head_jitter_deg", "jitter deg", "{:.2f}"), ("ms_per_window", "ms/window", "{:.0f}"),
    ("cpu_ms_per_window", "CPU ms", "{:.0f}"),
)  # fmt: skip


def cells(row: dict[str, Any]) -> list[str]:
    return ["-" if row[key] is None else form.format(row[key]) for key, _, form in COLUMNS]


def line(row: dict[str, Any]) -> str:
    named = zip(COLUMNS, cells(row), strict=True)
    return "  ".join(f"{name} {cell}" for (_, name, _), cell in named)


def describe(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    machine = card["machine"]
    weights = (
        "" if card["motion_run_step"] is None else f", motion at step {card['motion_run_step']}"
    )
    if card["student_run_step"] is not None:
        weights += f", student at step {card['student_run_step']}"
    lines = [
        "# Samplers of the motion model", "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}.", "",
        f"{machine['cores']} cores of {machine['cpu']} ({machine['device']}). "
        f"Release {card['release']['name']} ({card['release']['sha256'][:12]}){weights}. "
        f"{len(card['recordings'])} recordings x {card['seconds']:g} s: "
        + ", ".join(card["recordings"]) + ".", "",
        "| " + " | ".join(name for _, name, _ in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells(row)) + " |" for row in card["rows"]), "",
        "distance: to the reference, in deviations of the data. sync, lag (frames from 0),"
        " closures on p b m, rest: `metrics/sync.py` on the landmarks of the mean head, which named"
        " weights alone can move. Real interviews, on pictures: sync 0.42, closures 0.88, blinks"
        " 21, head 0.59, jitter 0.44.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Distance and sync over calls of the network, one line per sampler."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is missing (it comes with the dev extra)", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = (("distance", "distance to reference"), ("correlation", "lip sync"),
            ("closures", "closures hit"), ("ms_per_window", "ms per window"))  # fmt: skip
    figure, axes = pyplot.subplots(1, len(keys), figsize=(4 * len(keys), 3.6), dpi=90)
    first = {k: rows[-1][k] for k in ("guidance", "temperature")}
    for axis, (key, title) in zip(axes, keys, strict=True):
        for name in dict.fromkeys(r["sampler"] for r in rows):
            mine = [r for r in rows if r["sampler"] == name]
            if name != STUDENT:
                mine = [r for r in mine if first.items() <= r.items()]
            mine = [r for r in mine if r[key] is not None]
            if mine:
                axis.plot(
                    [r["evaluations"] for r in mine], [r[key] for r in mine], "o-", label=name
                )
        axis.set_xscale("log", base=2)
        axis.set_xlabel("calls of the network")
        axis.set_title(title)
    axes[0].set_yscale("log")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
