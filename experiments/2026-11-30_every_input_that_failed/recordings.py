"""How far the bundled release opens lips to one recording in many bad forms.

    python experiments/2026-11-30_every_input_that_failed/recordings.py MEDIA/speech [OUT.md]

Each recording (its first ten seconds) is heard as it is, and with an offset, hum, rumble, another
level or clipping. Columns: 95th percentile of the lips' gap in frames near phonemes, as a ratio to
the recording as it is (mean, least and most of all recordings); correlation of the gap with what
the phonemes ask for; share of p, b and m at which lips close; usual gap where nobody speaks, cm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vasa_jax.core.types import EXPRESSION, FPS, SAMPLE_RATE_HZ
from vasa_jax.generate.engine import Engine, engine_for
from vasa_jax.generate.offline import generate_motion, speech_features
from vasa_jax.io.audio import read_audio
from vasa_jax.metrics import sync
from vasa_jax.metrics.phonemes import Phoneme, expected_aperture, recognise

try:
    from vasa_jax.generate.finish.steady import calm, settle

    from vasa_jax.generate.controls import Wishes
    from vasa_jax.motion.arkit.lips import lip_gap_cm
except ModuleNotFoundError:  # the tree before: run there for the figures of before
    from vasa_jax.generate.steady import calm, settle
    from vasa_jax.generate.wishes import Wishes
    from vasa_jax.motion.lips import lip_gap_cm

SECONDS = 10
FILES = (
    "english_female.flac", "english_male.mp3", "german1.flac", "case1_talker.flac",
    "echomimic_en.flac", "reading.flac", "chinese1_haierlizhi.flac", "laotzu3.flac",
)  # fmt: skip


def forms(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and sounds; ``x`` is mono at 16 kHz."""
    t, rng = np.arange(len(x)) / SAMPLE_RATE_HZ, np.random.default_rng(0)

    def tone(hz: float, rms: float) -> np.ndarray:
        return rms * 2**0.5 * np.sin(2 * np.pi * hz * t)

    spectrum = np.fft.rfft(np.cumsum(rng.standard_normal(len(x))))
    hz = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE_HZ)
    rumble = np.fft.irfft(np.where((hz > 5) & (hz < 40), spectrum, 0), len(x))
    rumble /= rumble.std()
    buzz = sum(tone(50 * k, 1 / k) for k in range(1, 9))
    yield "as it is", x
    for offset in (0.02, 0.05, 0.1, 0.3):
        yield f"offset {offset}", x + offset
    yield "slow drift", x + 0.2 * np.sin(2 * np.pi * 0.3 * t)
    yield "hum 50 Hz, -20 dB", x + tone(50, 0.1)
    yield "hum 60 Hz, -20 dB", x + tone(60, 0.1)
    yield "rumble 5 to 40 Hz, -20 dB", x + 0.1 * rumble
    yield "rumble 5 to 40 Hz, -10 dB", x + 10**-0.5 * rumble
    for level in (-20, -30, -40, -50, -60):
        yield f"level {level} dB", x * 10 ** (level / 20)
    for beyond in (12, 24):
        yield f"{beyond} dB beyond clipping", np.clip(x / abs(x).max() * 10 ** (beyond / 20), -1, 1)
    yield "buzz 50 to 400 Hz, -10 dB to speech", x + buzz / np.std(buzz) * x.std() * 10**-0.5


def gap(engine: Engine, x: np.ndarray) -> np.ndarray:
    """The lips' gap (T,) in cm, by the release's own quick way."""
    features = speech_features(engine.motion_config, x.astype(np.float32))
    controls, how = Wishes().controls(len(features)), engine.quick_defaults
    motion = generate_motion(
        engine.motion_config, engine.quick_params, engine.stats, features, controls,
        sampler=how.sampler, steps=how.steps, guidance=how.guidance, grid=how.grid,
        temperature=how.temperature,
    )  # fmt: skip
    return np.asarray(lip_gap_cm(settle(calm(motion), controls)[:, EXPRESSION]))


def measures(open_T: np.ndarray, said: list[Phoneme]) -> tuple[float, float, float, float]:
    spoken = np.zeros(len(open_T), bool)
    for phoneme in said:
        spoken[max(0, int(phoneme.start * FPS) - 2) : int(phoneme.end * FPS) + 3] = True
    wanted = expected_aperture(said, len(open_T))
    correlation, _ = sync.best_lag(sync.lag_correlation(wanted, open_T))
    rest = float(np.median(open_T[~spoken])) if (~spoken).sum() > 5 else float("nan")
    closed = sync.closures(open_T, said)["hit_rate"]
    return float(np.percentile(open_T[spoken], 95)), correlation, closed, rest


def main(folder: Path, out: Path | None) -> None:
    engine, found = engine_for("lite"), {}
    for name in FILES:
        x = read_audio(folder / name)[: SECONDS * SAMPLE_RATE_HZ]
        said = recognise(x)
        for form, sound in forms(x):
            found.setdefault(form, []).append(measures(gap(engine, sound), said))
    lines = [
        "| form | opening | least | most | sync | closures | rest, cm |",
        "|---|---|---|---|---|---|---|",
    ]
    clean = np.array(found["as it is"])[:, 0]
    for form, rows in found.items():
        table = np.array(rows, float)
        ratio, (_, correlation, closed, rest) = table[:, 0] / clean, np.nanmean(table, 0)
        lines.append(
            f"| {form} | {ratio.mean():.2f} | {ratio.min():.2f} | {ratio.max():.2f} | "
            f"{correlation:.3f} | {closed:.2f} | {rest:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
