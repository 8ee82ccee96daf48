"""Portraits turned and raised, as a picture: what does a head that moves uncover?

    python tools/turn_heads.py OUT.npy --portraits DIR [--names 067 302] [--yaw -14 -7 7 14]
        [--pitch 8]
    python tools/turn_heads.py --sheet OUT.png BEFORE.npy AFTER.npy

The first form renders with the package that is imported (``PYTHONPATH`` chooses another commit's);
the second puts several of its results side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.generate.talker import Talker


def turned(
    portraits: Path, names: list[str], yaw_deg: list[float], pitch_deg: list[float], release: str
) -> np.ndarray:
    """Rows of pictures (Y, X, 3): a portrait each, a turn (added to its own) in each column."""
    motion = np.zeros((len(yaw_deg) + len(pitch_deg), MOTION_DIM), np.float32)
    motion[: len(yaw_deg), MOTION_INDEX["yaw"]] = np.radians(yaw_deg)
    motion[len(yaw_deg) :, MOTION_INDEX["pitch"]] = np.radians(pitch_deg)
    rows = []
    for name in names:
        talker = Talker(release, str(portraits / f"{name}.jpg"))
        rows.append(np.concatenate(list(talker.render(motion)), 1))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--sheet", type=Path, metavar="PNG")
    parser.add_argument("--portraits", type=Path, metavar="DIR")
    parser.add_argument("--names", nargs="+", default=["067", "302", "082", "080"])
    parser.add_argument("--yaw", nargs="+", type=float, default=[-14.0, -7.0, 7.0, 14.0])
    parser.add_argument(
        "--pitch", nargs="*", type=float, default=[], help="degrees, up, without yaw"
    )
    parser.add_argument("--release", default="lite")
    args = parser.parse_args()
    if args.sheet:
        both = np.concatenate([np.load(f) for f in args.files], 1)
        sheet = Image.fromarray(both).resize((both.shape[1] * 3 // 4, both.shape[0] * 3 // 4))
        sheet.save(args.sheet, quality=92)
        return
    if args.portraits is None or len(args.files) != 1:
        parser.error("one OUT.npy and --portraits DIR, or --sheet PNG and results")
    rows = turned(args.portraits, args.names, args.yaw, args.pitch, args.release)
    np.save(args.files[0], rows)


if __name__ == "__main__":
    main()
