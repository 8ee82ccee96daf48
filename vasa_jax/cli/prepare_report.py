"""``vasa-jax prepare report`` and ``split``: what is in a folder of clips, and who is held out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def report(folder: Path, args: argparse.Namespace) -> int:
    """Prints what a folder holds; with --html also writes one page with pictures."""
    from vasa_jax.io.atomic import replacing
    from vasa_jax.prepare.report import Report

    made = Report(folder)
    if args.html:
        with replacing(args.html) as part:
            part.write_text(made.html(), encoding="utf-8")
    print(json.dumps(made.json(), ensure_ascii=False) if args.json else made.text())
    return 0


def split(folder: Path, args: argparse.Namespace) -> int:
    """Writes CLIPS/held_out.json."""
    from vasa_jax.core.errors import UserError
    from vasa_jax.prepare.split import split as chosen

    if args.held_out is None:
        raise UserError("how many people? vasa-jax prepare split CLIPS --held-out N")
    table = chosen(folder, args.held_out, args.seed)
    if args.json:
        print(json.dumps(table, ensure_ascii=False))
    else:
        print(f"held out: {', '.join(table['people'])} ({len(table['ids'])} clips)")
    return 0
