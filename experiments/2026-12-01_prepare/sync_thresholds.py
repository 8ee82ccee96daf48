"""How sure the sync judge is of clips, of their sound moved, of another's sound, and of noise.

python sync_thresholds.py CLIPS
"""

import sys
from pathlib import Path

import numpy as np

from vasa_jax.data.records import LANDMARK_STEP, Records, shards
from vasa_jax.metrics import sync_net
from vasa_jax.prepare.sync import moved


def main(folder: Path) -> None:
    judge, found = sync_net.load(), Records(shards(folder))
    rng = np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float]]] = {n: [] for n in ("own", "other", "noise")}
    wrong = []
    for i in range(len(found)):
        clip = found[i]
        landmarks = clip.arrays["landmarks"].astype(np.float32) * LANDMARK_STEP
        own = clip.arrays["samples"]
        other = np.resize(found[(i + 7) % len(found)].arrays["samples"], len(own))
        noise = (2000 * rng.normal(size=len(own))).astype(np.int16)

        def measured(samples, landmarks=landmarks):
            return judge.measure(landmarks, samples.astype(np.float32) / 32767)

        for name, samples in (("own", own), ("other", other), ("noise", noise)):
            m = measured(samples)
            rows[name].append((m["sync_net"], m["sync_net_shifted"]))
        by = int(rng.integers(-5, 6))
        lag = measured(own)["sync_net_lag"]
        wrong.append(measured(moved(own, by))["sync_net_lag"] + by - lag)
    for name, values in rows.items():
        sure, turned = np.array(values).T
        percent = np.percentile(sure, [1, 5, 50, 95, 99]).round(3)
        print(name, "confidence at 1, 5, 50, 95, 99 %:", percent, "moved round, at 50 and 99 %:",
              np.percentile(turned, [50, 99]).round(3))  # fmt: skip
    for least, margin in ((0.12, 0.03), (0.18, 0.05), (0.18, 0.08), (0.2, 0.08)):
        kept = {
            name: np.mean([a >= max(least, b + margin) for a, b in values])
            for name, values in rows.items()
        }
        print(least, margin, {name: round(float(share), 3) for name, share in kept.items()})
    print("known shifts missed by frames:", np.unique(wrong, return_counts=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
