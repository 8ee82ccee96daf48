"""``vasa-jax encode``: prepared clips as stage-2 records in the space of a face."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

DESCRIPTION = """\
Turn prepared clips into what stage 2 is trained on: motion in the space of a face, with sound,
gaze and distance. RUN is a stage-1 run folder or a release; the motion of a learned face is its
own code, so a motion model trained on it goes with that face alone.

LATENTS gets shards of records and, for a learned face, readout.json: what of lips, lids and gaze
can be read off its code, with R2 on clips that the readout was not fitted on. Records that are
there are left alone: the same command goes on with an interrupted run, or takes clips that came
later.
"""

EXAMPLES = """\
examples:
  vasa-jax encode runs/face clips -o latents
  vasa-jax encode lite clips -o motions --encoder runs/motion_encoder
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("source", metavar="RUN", help="run folder of stage 1, or a release")
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder made by vasa-jax prepare")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="LATENTS")
    parser.add_argument(
        "--encoder", default="", metavar="RUN", help="a run of configs/motion_encoder.py that reads"
        " motion off landmarks, for a face of named weights; steadier than the fits"
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at once (8)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    from vasa_jax.cli.progress import Progress
    from vasa_jax.prepare.encode import encode_folder, encoder_of

    encoder = encoder_of(args.source, args.clips, args.encoder, args.batch)
    began = time.perf_counter()
    progress = Progress(left=True)
    try:
        report = encode_folder(
            encoder, args.clips, args.out, say=lambda done, total: progress("clips", done, total)
        )
    finally:
        progress.close()
    report["seconds"] = round(time.perf_counter() - began, 1)
    if args.json:
        print(json.dumps(report))
        return 0
    print(f"{report['clips']} clips ({report['frames']} frames) encoded in {report['seconds']} s; "
          f"{report['skipped']} were there; {encoder.face.space.cfg.describe()}")  # fmt: skip
    for name, r2 in report.get("readout", {}).items():
        print(f"  {name}: R2 {r2:.2f} on clips that were not fitted")
    return 0
