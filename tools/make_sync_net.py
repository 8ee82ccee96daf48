"""Puts a trained sync judge into the package, or says how well it ranks clips.

    python tools/make_sync_net.py runs/sync_net    # writes vasa_jax/metrics/sync_net.npz
    python tools/make_sync_net.py runs/sync_net --rank VIDEO...  # only ranks these recordings
    python tools/make_sync_net.py --rank VIDEO...                # the same with the packaged one

The released half-precision weights are those that rank.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from vasa_jax.checkpoint.train_state import read_params
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.data.shards import read_shard, write_shard
from vasa_jax.metrics import sync_net
from vasa_jax.prepare.sync_clips import lip_clip
from vasa_jax.prepare.videos import video_landmarks, video_sound
from vasa_jax.train.sync_net import ranks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="run folder of configs/sync_net.py")
    parser.add_argument("--rank", type=Path, nargs="+", metavar="VIDEO", default=[])
    parser.add_argument("--landmarks", type=Path, help="folder that keeps the videos' landmarks")
    args = parser.parse_args()
    try:
        make(parser, args)
    except UserError as error:
        parser.error(str(error))


def make(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = sync_net.WEIGHTS_FILE
        if args.run is not None:
            config = args.run / "config.json"
            if not config.is_file():
                raise UserError(f"{args.run} is no run of configs/sync_net.py")
            cfg = from_json(
                sync_net.SyncNetConfig, json.loads(config.read_text(encoding="utf-8"))["model"]
            )
            path = Path(folder) / "weights.npz" if args.rank else path
            sync_net.save(path, cfg, read_params(args.run)[1])
            if not args.rank:
                print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
                return
        if not args.rank:
            parser.error("a run folder or --rank expected")
        clips = [lip_clip(video_sound(v), video_landmarks(v, args.landmarks)) for v in args.rank]
        write_shard(Path(folder) / "clips.array_record", clips)  # as training reads them
        found = ranks(sync_net.load(path), read_shard(Path(folder) / "clips.array_record"))
    print(json.dumps({"clips": len(clips), **{k: round(float(v), 4) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
