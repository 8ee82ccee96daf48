"""Lips of a release's motion alone, on the mean head: closures, sync, rest, with each emotion.

measure.py OUT.json --speech DIR [--release R] [--seconds 16] [--seeds 2]

No renderer and no detector takes part; the motion is finished as a recording's is (``calm``,
``settle``). "gap" is the median, over p, b and m, of the smallest gap within a frame, in distances
of the outer eye corners; a resting face has 0.02.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from vasa_jax.generate.finish.steady import calm, settle

import vasa_jax
from vasa_jax.core.config import from_json
from vasa_jax.core.types import EMOTIONS, FPS, MOTION_DIM, SAMPLE_RATE_HZ
from vasa_jax.face.head import head as heads
from vasa_jax.generate.engine import Engine
from vasa_jax.generate.offline import GenerateDefaults, generate_motion, speech_features
from vasa_jax.io.audio import read_audio
from vasa_jax.metrics import phonemes, sync

parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("--speech", type=Path, required=True)
parser.add_argument("--release", default="lite")
parser.add_argument("--seconds", type=float, default=16.0)
parser.add_argument("--seeds", type=int, default=2)
args = parser.parse_args()

release = vasa_jax.load_release(args.release)
engine = Engine(release)
how = from_json(GenerateDefaults, release.config["student"]["generate"])
neutral, centers = heads.person(engine.head, jnp.zeros(engine.head.identity.shape[0]))


@jax.jit
@jax.vmap
def landmarks(motion):  # written out here, since this runs in the tree before, too
    pose = heads.drive(jnp.zeros(MOTION_DIM), jnp.asarray([0.0, 0.0, 0.06]), motion)
    placed = heads.landmarks(engine.head, heads.place_head(engine.head, neutral, centers, pose))
    return placed * jnp.array([0.5, 0.5, -0.03]) + jnp.array([0.5, 0.5, 0.0])


def measured(features, heard, wished, seed):
    controls = wished.controls(len(features))
    motion = generate_motion(
        engine.motion_config, release.params["student"], engine.stats, features, controls,
        seed=seed, sampler=how.sampler, steps=how.steps, guidance=how.guidance,
        temperature=how.temperature,
    )  # fmt: skip
    marks = np.asarray(landmarks(settle(calm(motion), controls)))
    gap = sync.lip_aperture(marks)
    times = [sync.lip_time(p) * FPS - 0.5 for p in heard if p.symbol in sync.BILABIAL]
    at = [round(t) for t in times if 1 <= t < len(gap) - 2]
    row = sync.measure(marks, heard)
    row["gap"] = float(np.median([gap[t - 1 : t + 2].min() for t in at])) if at else np.nan
    return row


sounds = sorted(p for p in args.speech.iterdir() if p.suffix in (".flac", ".wav", ".mp3", ".m4a"))
wanted = round(args.seconds * SAMPLE_RATE_HZ)
samples = [np.resize(read_audio(p), wanted).astype(np.float32) for p in sounds]
heard = [phonemes.recognise(s) for s in samples]
features = [speech_features(engine.motion_config, s) for s in samples]
table = {}
for emotion in EMOTIONS:
    wished = vasa_jax.wishes(emotion={} if emotion == "neutral" else {emotion: 0.8})
    seeds = range(args.seeds if emotion == "neutral" else 1)
    rows = [
        measured(f, h, wished, seed) for f, h in zip(features, heard, strict=True) for seed in seeds
    ]
    keys = ("closures", "closures_chance", "gap", "correlation", "lag_frames", "rest_ratio")
    table[emotion] = {k: float(np.nanmean([r.get(k, np.nan) for r in rows])) for k in keys}
    print(emotion, " ".join(f"{k} {v:.3f}" for k, v in table[emotion].items()), flush=True)
args.out.parent.mkdir(parents=True, exist_ok=True)
args.out.write_text(json.dumps({"release": release.sha256, "table": table}, indent=1) + "\n")
