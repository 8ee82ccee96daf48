"""Trajectories of samplers on a real clip; see tools/plot_samplers.

One window of the release's motion model, with no past before it and its usual guidance, sampled
from the same first noise by each sampler. Left: the state over denoising time, one line per chosen
frame, as it is in normalised units. Right: the motion over frames, in physical units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

import vasa_jax
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ, Controls
from vasa_jax.diffusion import samplers
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.generate.engine import engine_for
from vasa_jax.generate.offline import DEFAULT_GUIDANCE, speech_features
from vasa_jax.io.audio import read_audio
from vasa_jax.io.image import write_image
from vasa_jax.motion.guided import Seen, guided_denoiser
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig

COLOURS = ((25, 95, 180), (215, 95, 20), (30, 140, 70), (150, 40, 140))
LEFT, RIGHT, HEIGHT, GAP, TOP = 520, 720, 170, 40, 48


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/plot_samplers", description=__doc__.split("\n")[0])
    parser.add_argument("--release", default="lite")
    parser.add_argument("--speech", help="default: the bundled one")
    parser.add_argument("--samplers", nargs="+", default=["ddim", "dpmpp_2m"], metavar="NAME",
                        help=f"of {', '.join(samplers.SAMPLERS)}")  # fmt: skip
    parser.add_argument("--steps", type=int, nargs="+", default=[16],
                        help="of each sampler, or one number for all (16)")  # fmt: skip
    parser.add_argument("--grid", default="uniform", choices=TIME_GRIDS)
    parser.add_argument("--start", type=float, default=0.0, help="where the window begins, s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numbers", nargs="+", metavar="NAME", help="default: some of its space")
    parser.add_argument("-o", "--out", required=True, metavar="PNG")
    args = parser.parse_args()
    engine = engine_for(args.release)
    model, stats = engine.motion_config, engine.stats
    args.numbers = args.numbers or model.motion_space.shown[-4:]
    for name, known in [(n, samplers.SAMPLERS) for n in args.samplers] + [
        (n, model.motion_space.index) for n in args.numbers
    ]:
        if name not in known:
            parser.error(f"no {name!r}; there are {', '.join(known)}")
    counts = args.steps * len(args.samplers) if len(args.steps) == 1 else args.steps
    if len(counts) != len(args.samplers):
        parser.error("--steps takes one number, or one for each sampler")

    speech = read_audio(args.speech or vasa_jax.example_speech())
    features = speech_features(model, speech[round(args.start * SAMPLE_RATE_HZ) :])
    denoise = window_denoiser(model, engine.motion_params, features)
    ways = []
    for name, count in zip(args.samplers, counts, strict=True):
        times = TIME_GRIDS[args.grid](model.make_schedule(), count)
        ways.append((f"{name}, {count} steps", np.asarray(times), np.asarray(
            way(model, samplers.SAMPLERS[name], denoise, times, args.seed)
        )))  # fmt: skip
    write_image(args.out, draw(ways, args.numbers, stats))
    print(args.out)
    return 0


def window_denoiser(
    model: MotionModelConfig, params: object, features: np.ndarray
) -> samplers.Denoiser:
    """x0 of ``(1, W, M)`` for the first window of ``features`` (T, D), guided, no controls."""
    past, window = model.past, model.window
    length = past + window + model.lookahead_frames
    rows = np.zeros((1, length, model.features.dim), np.float32)
    there = features[: length - past]
    rows[0, past : past + len(there)] = there
    valid = np.zeros((1, length), bool)
    valid[0, past : past + len(there)] = True
    seen = Seen(
        features=jnp.asarray(rows), audio_valid=jnp.asarray(valid),
        past=jnp.zeros((1, past, model.motion_space.dim)), past_valid=jnp.zeros((1, past), bool),
        motion_valid=jnp.ones((1, window), bool), controls=Controls.none(1, window), keep={},
    )  # fmt: skip
    scales = {name: jnp.float32(scale) for name, scale in DEFAULT_GUIDANCE.items()}
    return guided_denoiser(model, params, seen, scales)


def way(
    model: MotionModelConfig,
    step: samplers.Step,
    denoise: samplers.Denoiser,
    times: jax.Array,
    seed: int,
) -> jax.Array:
    """Every state ``(steps + 1, W, M)``, normalised."""
    key, shape = jax.random.key(seed), (1, model.window, model.motion_space.dim)

    def noise(i: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, i), shape)

    @jax.jit
    def run(times: jax.Array) -> jax.Array:
        return samplers.trajectory(
            step, model.make_schedule(), denoise, noise(jnp.int32(0)), times, lambda i: noise(1 + i)
        )

    return run(times)[:, 0]


def draw(ways: Sequence[tuple], numbers: Sequence[str], stats: MotionStats) -> np.ndarray:
    """A uint8 picture: a row per number; the state over time left, the motion over frames right."""
    width = LEFT + RIGHT + 3 * GAP
    image = Image.new("RGB", (width, TOP + len(numbers) * (HEIGHT + GAP)), "white")
    pen = ImageDraw.Draw(image)
    for i, (label, _, _) in enumerate(ways):
        pen.text((GAP + 220 * i, 8), label, fill=COLOURS[i % len(COLOURS)])
    frames = ways[0][2].shape[1]
    chosen = [round(f * (frames - 1)) for f in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for r, name in enumerate(numbers):
        top, index = TOP + r * (HEIGHT + GAP), stats.space.index[name]
        states = [(1.0 - times, states[:, chosen, index]) for _, times, states in ways]
        motion = [np.asarray(stats.denormalize(w[-1]))[:, index] for _, _, w in ways]
        seconds = np.arange(frames) / FPS
        left = panel(pen, (GAP, top), LEFT, (0.0, 1.0), [y for _, y in states],
                     f"{name}, state of frames {chosen}", "t = 1 ... 0")  # fmt: skip
        right = panel(pen, (2 * GAP + LEFT, top), RIGHT, (0.0, seconds[-1]), motion,
                      f"{name}, motion", f"0 ... {seconds[-1]:.1f} s")  # fmt: skip
        for i, ((x, many), y) in enumerate(zip(states, motion, strict=True)):
            colour = COLOURS[i % len(COLOURS)]
            for one in many.T:
                pen.line(left(x, one), fill=colour, width=1)
            pen.line(right(seconds, y), fill=colour, width=2)
    return np.asarray(image)


def panel(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, across: tuple[float, float],
    values: Sequence[np.ndarray], title: str, axis: str,
) -> Callable[[np.ndarray, np.ndarray], list[tuple[float, float]]]:  # fmt: skip
    """Frames a panel that holds ``values`` and returns what turns (x, y) into its points."""
    (x0, y0), low, high = corner, min(v.min() for v in values), max(v.max() for v in values)
    pad = 0.05 * (high - low) + 1e-6
    low, high = float(low - pad), float(high + pad)
    pen.rectangle((x0, y0, x0 + width, y0 + HEIGHT), outline=(200, 200, 200))
    pen.text((x0 + 4, y0 - 14), f"{title}   ({low:.2f} ... {high:.2f})", fill=(60, 60, 60))
    pen.text((x0 + width - 70, y0 + HEIGHT + 4), axis, fill=(120, 120, 120))

    def points(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        u = (np.asarray(x) - across[0]) / (across[1] - across[0])
        v = (high - np.asarray(y)) / (high - low)
        return [(float(x0 + width * a), float(y0 + HEIGHT * b)) for a, b in zip(u, v, strict=True)]

    if low < 0 < high:
        pen.line(points(np.array(across), np.zeros(2)), fill=(225, 225, 225))
    return points


if __name__ == "__main__":
    raise SystemExit(main())
