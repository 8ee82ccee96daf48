"""The command that makes shards of clips for stage 2.

python -m vasa_jax.prepare.shards synthetic OUT --hours 4
python -m vasa_jax.prepare.shards speech OUT --folder DIR
python -m vasa_jax.prepare.shards videos OUT --folder DIR --encoder runs/motion_encoder
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from vasa_jax.data.folders import one_line_errors
from vasa_jax.synth import acted


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description="Make shards of stage-2 training data.")
    parser.add_argument("source", choices=("synthetic", "speech", "videos"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=1.0, help="of synthetic speech")
    parser.add_argument("--minutes-per-shard", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument(
        "--folder",
        type=Path,
        help="of videos of one talking person each, or of recordings; the "
        "first folder below it names the person (ANNA/a.mp4), else each file is somebody else",
    )
    parser.add_argument("--gaps", type=Path, help="folder of measured lip gaps, NAME.npy in cm")
    parser.add_argument(
        "--join", type=float, default=0.0, metavar="SECONDS",
        help="speech: short recordings of one folder follow one another until a clip is that long",
    )  # fmt: skip
    parser.add_argument("--encoder", type=Path, help="run folder of configs/motion_encoder.py")
    parser.add_argument("--head", type=Path, help="head model, .npz, if not the bundled one")
    parser.add_argument("--landmarks", type=Path, help="folder that keeps the videos' landmarks")
    args = parser.parse_args()
    if args.source == "speech":
        if args.folder is None:
            parser.error("speech needs --folder")
        from vasa_jax.synth import recorded

        recorded.make_shards(args.out, args.folder, args.gaps, join_s=args.join)
        return
    if args.source == "videos":
        if args.folder is None or args.encoder is None:
            parser.error("videos needs --folder and --encoder")
        from vasa_jax.prepare import videos

        reader = videos.load_reader(args.encoder, args.head)
        videos.make_video_shards(
            args.out, args.folder, reader, kept=args.landmarks, first=args.first
        )
        return
    count = max(1, round(args.hours * 60 / args.minutes_per_shard))
    began = time.monotonic()
    for i in range(args.first, args.first + count):
        path = args.out / f"synthetic_{i:05d}.array_record"
        if not path.exists():
            acted.make_synthetic_shard(path, seed=i, minutes=args.minutes_per_shard)
        done = i - args.first + 1
        print(f"{done}/{count} shards, {(time.monotonic() - began) / done:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
