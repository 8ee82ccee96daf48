"""Hours of one stream through the live path, faster than time passes; see tools/soak_rolling.

Sound goes hop by hop through the streaming features and the compiled rolling step, its state
donated, as in a live session; pictures are not rendered. The programme of sound, pauses, levels,
controls and guidance repeats every block (five minutes), so blocks differ by chance and by drift
alone. Two questions:

    memory   resident size and live device arrays after each block; growth is the largest size of
             the last hour minus that of the first
    drift    each measure's mean over the last hour must lie between the smallest and the largest
             of the first hour's twelve blocks (without any drift about one measure in 250 falls
             outside by chance)
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import card as cards  # noqa: E402
from vasa_jax.core.space import MotionSpace  # noqa: E402
from vasa_jax.motion.readout import Readout, readout_of  # noqa: E402
from vasa_jax.runtime.machine import resident_mb  # noqa: E402

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
GROWTH_ALLOWED_MB = 8.0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What a soak is asked for."""
    parser = argparse.ArgumentParser(prog="tools/soak_rolling", description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=10.0, help="of simulated time (10)")
    parser.add_argument("--release", default="lite")
    parser.add_argument("--hop", type=int, default=48, help="frames per step (48)")
    parser.add_argument(
        "--steps", type=int, help="of the full model; the release's quickest way when not given"
    )
    parser.add_argument("--sampler", help="of the full model, with --steps")
    parser.add_argument("--guided", nargs="*", metavar="CONDITION", help="as the release does")
    parser.add_argument("--seed", type=int, default=0, help="of the stream's noise (0)")
    parser.add_argument("--block", type=float, default=300.0, help="seconds per block (300)")
    parser.add_argument("--blocks-per-hour", type=int, default=12, help="12; fewer for a trial")
    parser.add_argument("--wall-minutes", type=float, default=0.0, help="stop then (0: never)")
    parser.add_argument("--name", default="soak", help="first word of the card's file name")
    parser.add_argument("--out", default=str(ROOT / "experiments" / "benchmarks"), metavar="DIR")
    return parser.parse_args(argv)


def main() -> int:
    args = arguments()
    card = soak(args)
    text = describe(card)
    print(text)
    cards.write(args.out, f"{args.name}_{args.release}_{card['date']}", text, card)
    return 0 if card["verdict"]["passed"] else 1


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Runs it; everything the card says."""
    import jax

    import vasa_jax
    from vasa_jax.audio import features as audio_features
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.types import FPS, SAMPLES_PER_FRAME
    from vasa_jax.generate import rolling
    from vasa_jax.generate.engine import Engine
    from vasa_jax.io.audio import read_audio

    compilations = [0]

    def listen(event: str, duration: float, **unused: Any) -> None:
        compilations[0] += event == COMPILE_EVENT

    jax.monitoring.register_event_duration_secs_listener(listen)

    release = load_release(args.release)
    engine = Engine(release)
    model, stats = engine.motion_config, engine.stats
    quick = args.steps is None
    defaults = engine.quick_defaults if quick else engine.defaults
    params = jax.device_put(engine.quick_params if quick else engine.motion_params)
    guided = tuple(n for n, scale in defaults.guidance.items() if scale)
    cfg = rolling.RollingConfig(
        hop=args.hop,
        sampler=args.sampler or defaults.sampler,
        steps=args.steps or defaults.steps,
        grid=defaults.grid,
        temperature=defaults.temperature,
        guided=guided if args.guided is None else tuple(args.guided),
    )
    readout = readout_of(model.motion_space, release.stats.get("motion", {}))
    ahead, hop = cfg.lookahead(model), cfg.hop
    hops_per_block = round(args.block * FPS / hop)
    num_blocks = max(2, round(args.hours * args.blocks_per_hour))
    # The programme covers a block and what its last step hears beyond it, which is the beginning.
    frames = hops_per_block * hop
    speech = read_audio(vasa_jax.example_speech())
    sound = programme_of_sound(speech, frames * SAMPLES_PER_FRAME)
    controls = programme_of_controls(frames)
    scale_of = np.linspace(0.0, 1.5, hops_per_block, dtype=np.float32)

    feature_step = jax.jit(audio_features.step, static_argnums=0, donate_argnums=1)
    hear = functools.partial(feature_step, model.features)

    def samples(first: int, count: int) -> np.ndarray:
        index = np.arange(first, first + count) % frames
        return sound.reshape(frames, SAMPLES_PER_FRAME)[index].reshape(1, -1)

    heard = audio_features.init_state(model.features, 1)
    # The first frames that look ahead; everything later comes a hop at a time.
    heard, tail = hear(heard, samples(0, ahead))
    tail = np.asarray(tail)
    state = rolling.init_state(model, np.asarray([args.seed]))
    valid = np.ones((1, hop + ahead), bool)
    active, reset = np.ones(1, bool), np.zeros(1, bool)
    denormalize = jax.jit(stats.denormalize)

    def advance(heard, tail, state, n: int):
        """Hop n of a block: new sound in, physical motion out."""
        heard, new = hear(heard, samples(n * hop + ahead, hop))
        audio = np.concatenate([tail, np.asarray(new)], axis=1)
        index = np.arange(n * hop, (n + 1) * hop + ahead) % frames
        rows = type(controls)(*(x[None, index] for x in controls))
        scale = float(scale_of[n % hops_per_block])
        scales = rolling.guidance_scales(cfg, 1, dict.fromkeys(cfg.guided, scale))
        state, motion = rolling.live_step(
            params, model, cfg, state, audio, valid, rows, scales,
            active_B=active, reset_B=reset,
        )  # fmt: skip
        return heard, audio[:, hop:], state, np.asarray(denormalize(motion)[0])

    began = time.perf_counter()
    for n in range(2):
        heard, tail, state, _ = advance(heard, tail, state, n)
    warm_up = time.perf_counter() - began
    before = compilations[0]
    blocks: list[dict[str, float]] = []
    memory: list[dict[str, float]] = []
    began, cpu = time.perf_counter(), time.process_time()
    last = None
    for block in range(num_blocks):
        sums = Sums(model.motion_space, readout)
        for n in range(hops_per_block):
            # Two hops of the programme were spent on warming up.
            heard, tail, state, motion = advance(heard, tail, state, n + 2)
            last = sums.add(motion, last)
        blocks.append(sums.measures())
        memory.append({"rss_mb": resident_mb(), **live_arrays()})
        wall = time.perf_counter() - began
        if (block + 1) % args.blocks_per_hour == 0:
            print(
                f"{(block + 1) / args.blocks_per_hour:.0f} h simulated in {wall / 60:.1f} min, "
                f"{memory[-1]['rss_mb']:.1f} MB",
                file=sys.stderr,
                flush=True,
            )
        if args.wall_minutes and wall > 60 * args.wall_minutes:
            break
    cpu = time.process_time() - cpu
    done = len(blocks) * hops_per_block
    per = min(args.blocks_per_hour, len(blocks) // 2)
    card = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["tools/soak_rolling", *sys.argv[1:]]),
        "commit": cards.commit(),
        "machine": {
            "processor": platform.machine(),
            "device": jax.devices()[0].platform,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "release": {"name": release.name, "sha256": release.sha256},
        "rolling": {
            "weights": "student" if quick and engine.quick_params is not engine.motion_params
            else "motion", "hop": hop, "steps": cfg.steps, "sampler": cfg.sampler,
            "temperature": cfg.temperature, "seed": args.seed, "guided": list(cfg.guided),
        },
        "simulated_hours": done * hop / FPS / 3600,
        "steps_run": done,
        "warm_up_seconds": warm_up,
        "wall_seconds": wall,
        "ms_per_step": 1e3 * wall / done,
        "cpu_ms_per_step": 1e3 * cpu / done,
        "frame_counter": int(np.asarray(state.frame)[0]),
        "compilations_after_warm_up": compilations[0] - before,
        "memory": memory,
        "blocks": blocks,
        "verdict": verdict(blocks, memory, per, compilations[0] - before),
    }  # fmt: skip
    return card


def programme_of_sound(speech: np.ndarray, length: int) -> np.ndarray:
    """``length`` samples: the utterance at changing levels with pauses of 0.3 to 6 s between."""
    rng = np.random.default_rng(0)
    out = np.zeros(length, np.float32)
    at = 0
    while at < length:
        piece = speech * np.float32(10 ** (rng.uniform(-18, 0) / 20))
        end = min(length, at + len(piece))
        out[at:end] = piece[: end - at]
        at = end + int(16000 * rng.uniform(0.3, 6.0))
    out += (1e-3 * rng.standard_normal(length)).astype(np.float32)
    return out


def programme_of_controls(frames: int) -> Any:
    """Controls that come and go: 20 s each with gaze, distance, emotion, and free."""
    from vasa_jax.core.types import Controls

    rng = np.random.default_rng(1)
    part = (np.arange(frames) // 500) % 4
    turn = np.arange(frames) // 2000
    count = int(turn.max()) + 1
    gaze = rng.uniform(-0.35, 0.35, (count, 2))[turn]
    emotion = np.eye(8)[rng.integers(0, 8, count)][turn]
    f32 = functools.partial(np.asarray, dtype=np.float32)
    return Controls(
        gaze=f32(gaze), gaze_on=f32(part == 0),
        distance=f32(np.where(part == 1, rng.uniform(0.8, 1.25, count)[turn], 1.0)),
        distance_on=f32(part == 1), emotion=f32(emotion), emotion_on=f32(part == 2),
    )  # fmt: skip


class Sums:
    """Running sums over the frames of a block, in double precision; a fixed amount of memory."""

    def __init__(self, space: MotionSpace, readout: Readout | None) -> None:
        self.space, self.readout = space, readout
        self.count = 0
        self.sum: Any = 0.0
        self.square: Any = 0.0
        self.change: Any = 0.0
        self.closed, self.open = 0.0, 0.0

    def add(self, motion_TM: np.ndarray, last_M: np.ndarray | None) -> np.ndarray:
        """Adds frames; ``last_M`` is the frame before them. Returns the last one."""
        m = motion_TM.astype(np.float64)
        before = m[:1] if last_M is None else last_M[None]
        self.count += len(m)
        self.sum += m.sum(0)
        self.square += np.square(m).sum(0)
        self.change += np.square(np.diff(np.concatenate([before, m]), axis=0)).sum(0)
        if self.readout is not None:
            self.closed += float((self.readout.lids(m)[:, 0] > 0.5).sum())
            self.open += float(self.readout.aperture(m).sum())
        return m[-1]

    def measures(self) -> dict[str, float]:
        """Mean, spread and change from frame to frame of each group of the motion vector."""
        from vasa_jax.core.types import POSE_NAMES

        mean = self.sum / self.count
        variance = np.maximum(self.square / self.count - mean**2, 0.0)
        out = {f"mean {n}": float(mean[self.space.index[n]]) for n in POSE_NAMES}
        del out["mean tz"]  # always zero
        for name, group in self.space.groups.items():
            g = list(group)
            out[f"mean of {name}"] = float(mean[g].mean())
            out[f"spread of {name}"] = float(np.sqrt(variance[g].mean()))
            out[f"change of {name}"] = float(np.sqrt(self.change[g].mean() / self.count))
        if self.readout is not None:
            out["lids closed"] = self.closed / self.count
            out["mean aperture"] = self.open / self.count
        return out


def verdict(
    blocks: list[dict[str, float]], memory: list[dict[str, float]], per: int, compiled: int
) -> dict[str, Any]:
    """First ``per`` blocks against the last ``per``."""
    rows, drifted = {}, []
    for name in blocks[0]:
        first = np.array([b[name] for b in blocks[:per]])
        final = float(np.mean([b[name] for b in blocks[-per:]]))
        inside = bool(first.min() <= final <= first.max())
        rows[name] = {
            "first_min": float(first.min()), "first_mean": float(first.mean()),
            "first_max": float(first.max()), "last_mean": final, "inside": inside,
        }  # fmt: skip
        drifted += [] if inside else [name]
    rss = np.array([m["rss_mb"] for m in memory])
    growth = float(rss[-per:].max() - rss[:per].max())
    arrays = np.array([m["live_mb"] for m in memory])
    live = float(arrays[-per:].max() - arrays[:per].max())
    finite = all(np.isfinite(v) for b in blocks for v in b.values())
    return {
        "measures": rows,
        "drifted": drifted,
        "rss_growth_mb": growth,
        "live_arrays_growth_mb": live,
        "finite": finite,
        "passed": bool(
            finite and not drifted and not compiled and live <= 0 and growth < GROWTH_ALLOWED_MB
        ),
    }


def describe(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    v, memory, r = card["verdict"], card["memory"], card["rolling"]
    rss = [m["rss_mb"] for m in memory]
    per_hour = max(1, round(len(memory) / max(card["simulated_hours"], 1e-9)))
    hours = [f"{x:.1f}" for x in rss[per_hour - 1 :: per_hour]] or [f"{rss[-1]:.1f}"]
    word = "passed" if v["passed"] else "NOT passed"
    lines = [
        f"# Soak of the rolling step: {card['simulated_hours']:.1f} simulated hours, {word}",
        "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}.",
        "",
        f"Release {card['release']['name']} ({card['release']['sha256'][:12]}), one stream, hop "
        f"{r['hop']}, {r['sampler']} with {r['steps']} steps, guided: {', '.join(r['guided'])}. "
        f"{card['machine']['cores']} core(s), {card['machine']['device']}; versions: "
        + ", ".join(f"{k} {x}" for k, x in card["versions"].items())
        + ".",
        "",
        "| what | value |",
        "|---|---|",
        f"| steps | {card['steps_run']} of {card['ms_per_step']:.1f} ms "
        f"({card['cpu_ms_per_step']:.1f} ms of processor time), in "
        f"{card['wall_seconds'] / 60:.1f} min |",
        f"| compilations after warm-up | {card['compilations_after_warm_up']} |",
        f"| resident memory after each hour, MB | {', '.join(hours)} |",
        f"| growth, largest of the last hour less largest of the first, MB | "
        f"{v['rss_growth_mb']:.2f} |",
        f"| live device arrays, first to last block, MB | {memory[0]['live_mb']:.2f} to "
        f"{memory[-1]['live_mb']:.2f} ({memory[0]['live_arrays']:.0f} to "
        f"{memory[-1]['live_arrays']:.0f} arrays) |",
        f"| measures of motion outside the first hour's spread | "
        f"{', '.join(v['drifted']) or 'none'} of {len(v['measures'])} |",
        "",
        "| measure | first hour, lowest .. mean .. highest block | last hour |",
        "|---|---|---|",
    ]
    lines += [
        f"| {n} | {x['first_min']:.4f} .. {x['first_mean']:.4f} .. {x['first_max']:.4f} | "
        f"{x['last_mean']:.4f} |"
        for n, x in v["measures"].items()
    ]
    return "\n".join([*lines, "", "Spread and change are root mean squares over a group.", ""])


def live_arrays() -> dict[str, float]:
    """Arrays on the device. Counted here, because a list kept from before would hold its arrays."""
    import jax

    sizes = [array.nbytes for array in jax.live_arrays()]
    return {"live_arrays": len(sizes), "live_mb": sum(sizes) / 1e6}


if __name__ == "__main__":
    raise SystemExit(main())
