"""Lite and full on a GPU in one unattended run; see tools/gpu_compare.

Time is shared out beforehand, the most telling parts come first, and a size that runs out of time
says in its card what was left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools import bench_vs_torch

# (size, names of parts, share of the time): what matters most of both sizes, then the rest.
LEGS = (
    ("full", ("render", "window", "warp", "live", "offline"), 0.42),
    ("lite", ("render", "window", "warp", "live", "offline"), 0.28),
    ("full", ("appearance", "train_motion", "train_face"), 0.16),
    ("lite", ("appearance", "flow", "guided", "train_motion", "train_face"), 0.14),
)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    missing = bench_vs_torch.why_not(args.device)
    if missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    began = time.monotonic()
    end, good, spent = began + args.minutes * 60, 0, 0.0
    for i, (size, parts, share) in enumerate(LEGS, 1):
        spent += share
        if args.size and size != args.size:
            continue
        # What a leg leaves over goes to those after it.
        deadline = began + args.minutes * 60 * spent
        if time.monotonic() > end - 5:
            print(f"out of time: {size} {', '.join(parts)} not run", file=sys.stderr)
            continue
        leg = ["--size", size, "--device", args.device, "--only", *parts]
        leg += ["--part-seconds", str(args.part_seconds), "--out", str(args.out)]
        leg += ["--name", f"gpu_compare_{i}", "--cores", "0"]
        leg += ["--quick"] if args.quick else []
        leg += ["--no-layers"] if i > 2 else []
        options = bench_vs_torch.parse(leg)
        try:
            card = bench_vs_torch.measure(options, deadline=deadline)
        except SystemExit as error:  # layers that differ, say: the other legs still tell something
            print(error, file=sys.stderr)
            continue
        bench_vs_torch.keep(card, options)
        good += any("ms" in f for row in card["rows"] for f in row["forms"].values())
    print(f"{good} cards in {args.out}, {(time.monotonic() - began) / 60:.1f} minutes")
    return 0 if good else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/gpu_compare", description=(__doc__ or "").split(";")[0]
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu")
    parser.add_argument("--size", choices=("lite", "full"), help="only one of the two")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer; says so")
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything (default 8.5)")
    parser.add_argument("--part-seconds", type=float, default=5.0, help="of timing per part")
    parser.add_argument("--out", type=Path, default=bench_vs_torch.OUT)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
