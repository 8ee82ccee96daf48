"""What a recording's motion does: controls met, jitter, lips in pauses, closures, blinks, start.

    measure.py OUT.json [RECORDING ...] [--seeds 3] [--seconds 20] [--wanted-s 0.3]

``Talker.motion`` of the bundled release and portrait, of the bundled recording and of those given;
no renderer takes part. Each is spoken with nothing asked for; with gaze, distance and an emotion
asked for from the first frame on; and with both changed half way. Runs in the tree before, too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

import vasa_jax
from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.io.audio import read_audio
from vasa_jax.metrics import phonemes, sync
from vasa_jax.motion.arkit.lips import lip_gap_cm

GAZE_DEG, DISTANCE, SIZE = (20.0, -8.0), 0.8, MOTION_INDEX["log_scale"]
FROWN = MOTION_INDEX["mouthFrown_L"]  # the weight that "sad" asks most of
SHUT_CM = 0.1  # lips nearer than this look shut
PAUSE_S = 0.3  # from the nearest phoneme

parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("recordings", type=Path, nargs="*")
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=20.0)
parser.add_argument("--wanted-s", type=float, help="what if values asked for glide in so slowly?")
args = parser.parse_args()

if args.wanted_s is not None:
    from vasa_jax.generate.finish import arkit, lag, pose

    class Slower(lag.Settled):
        def __init__(self):
            super().__init__()
            self._wanted = lag.Lag(args.wanted_s)

    pose.Settled = arkit.Settled = Slower

talker = vasa_jax.Talker(vasa_jax.load_release("lite"), vasa_jax.example_portrait())


def jitter(values_TK):
    """Root mean square of what smoothing by one frame removes, as ``metrics.motion`` has it."""
    smooth = gaussian_filter1d(values_TK, 1.0, axis=0, mode="nearest")
    return float(np.sqrt(((values_TK - smooth) ** 2).sum(1).mean()))


def free(motion, heard):
    """Nothing is asked for."""
    gap = np.asarray(lip_gap_cm(motion[:, EXPRESSION]))
    times = (np.arange(len(motion)) + 0.5) / FPS
    far = np.full(len(times), np.inf)
    for p in heard:
        far = np.minimum(far, np.maximum(np.maximum(p.start - times, times - p.end), 0.0))
    pause, lids = far > PAUSE_S, motion[:, MOTION_INDEX["eyeBlink_L"]] > 0.6
    row = {
        "head jitter, deg": jitter(np.degrees(motion[:, :3])),
        "distance strays, std of log": float(motion[:, SIZE].std()),
        "blinks per minute": (lids[1:] & ~lids[:-1]).sum() * 60 * FPS / len(lids),
        "closures on p b m": sync.closures(gap, heard)["hit_rate"],
        "frames of pauses": float(pause.sum()),
    }
    if pause.sum() >= FPS:
        row["lips shut in pauses, share"] = float((gap[pause] < SHUT_CM).mean())
        row["gap in pauses, cm"] = float(gap[pause].mean())
    return row


def asked(motion):
    """Gaze, distance and an emotion are asked for from the first frame on."""
    gaze = np.degrees(motion[:, GAZE])
    off = np.linalg.norm(gaze - GAZE_DEG, axis=1)
    ratio = np.exp(-motion[:, SIZE])
    return {
        "gaze missed after 1 s, deg": float(np.linalg.norm(gaze[FPS:].mean(0) - GAZE_DEG)),
        "gaze, spread after 1 s, deg": float(np.sqrt(gaze[FPS:].var(0).sum())),
        "distance missed after 1 s, ratio": float(abs(ratio[FPS:].mean() - DISTANCE)),
        "gaze jitter, deg": jitter(gaze),
        "frown lacks after 1 s, of 0.8": max(0.0, 0.8 - float(motion[FPS:, FROWN].mean())),
        "frown lacks in frame 0, of 0.8": max(0.0, 0.8 - float(motion[0, FROWN])),
        "gaze missed in frame 0, deg": float(off[0]),
        "gaze missed in frames 0 to 12, deg": float(off[:13].mean()),
        "distance missed in frame 0, ratio": float(abs(ratio[0] - DISTANCE)),
        "largest step of gaze in frames 0 to 12, deg": float(
            np.linalg.norm(np.diff(gaze[:13], axis=0), axis=1).max()
        ),
    }


def changed(motion):
    """Half way the gaze turns to the other side and the head comes nearer."""
    at = len(motion) // 2
    gaze, ratio = np.degrees(motion[:, GAZE]), np.exp(-motion[:, SIZE])
    off = np.linalg.norm(gaze[at : at + FPS] - GAZE_DEG, axis=1)  # later ones are saccades
    near = slice(at - FPS, at + FPS)
    return {
        "changed: frames until gaze stays within 5 deg": float(
            np.max(np.flatnonzero(off > 5.0) + 1, initial=0)
        ),
        "changed: gaze farther out than asked, deg": float(
            max(np.abs(gaze[near, 0]).max() - GAZE_DEG[0], 0.0)
        ),
        "changed: nearer than asked, ratio": float(max(DISTANCE - ratio[near].min(), 0.0)),
        "changed: farther than asked, ratio": float(max(ratio[near].max() - 1.0, 0.0)),
        "changed: largest step of distance, ratio": float(np.abs(np.diff(ratio[near])).max()),
    }


rows = []
for path in (vasa_jax.example_speech(), *args.recordings):
    sound = read_audio(path)[: round(args.seconds * SAMPLE_RATE_HZ)]
    heard = phonemes.recognise(sound)
    for seed in range(args.seeds):
        row = {"recording": path.name, "seed": seed, "seconds": len(sound) / SAMPLE_RATE_HZ}
        row |= free(talker.motion(sound, seed=seed), heard)
        wanted = vasa_jax.controls(gaze=GAZE_DEG, distance=DISTANCE, emotion={"sad": 0.8})
        row |= asked(talker.motion(sound, controls=wanted, seed=seed))
        middle = int(row["seconds"] * FPS) // 2 / FPS
        turned = [[0, -GAZE_DEG[0], GAZE_DEG[1]], [middle - 1 / FPS, -GAZE_DEG[0], GAZE_DEG[1]],
                  [middle, *GAZE_DEG]]  # fmt: skip
        nearer = [[0, 1.0], [middle - 1 / FPS, 1.0], [middle, DISTANCE]]
        wanted = vasa_jax.controls(gaze=turned, distance=nearer)
        row |= changed(talker.motion(sound, controls=wanted, seed=seed))
        rows.append(row)
        print(path.name, seed, flush=True)
args.out.parent.mkdir(parents=True, exist_ok=True)
args.out.write_text(json.dumps(rows, indent=1) + "\n")
