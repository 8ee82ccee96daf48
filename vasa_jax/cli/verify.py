"""``vasa-jax verify``: does a file say what it is?"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from vasa_jax.cli.progress import Progress
from vasa_jax.core.errors import UserError

EPILOG = """\
exit code:
  0  every file is known to be made by this software: its mark was found, or an intact manifest
     says so
  1  some file is not: neither was found. That does not show that it is genuine.
  2  some file could not be read (it is named; the others are still looked at)
  3  some file has a manifest that does not fit its content: it was changed after it was signed
When several hold, the highest is given.

A mark is said to be found when the probability that a file without it scores as high is at most
one in a million; the number printed is a bound on that probability for this file's search. A local
certificate vouches for nobody: it shows that a file is unchanged, not who made it.

examples:
  vasa-jax verify out/me.mp4
  vasa-jax verify *.mp4 --json
"""
FOUND, NOT_FOUND, UNREADABLE, TAMPERED = 0, 1, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="videos and pictures of any origin"
    )
    parser.add_argument(
        "--thorough", action="store_true",
        help="also search sizes that simple scaling does not give, as of a video within another; "
        "three times slower",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Prints a verdict on each file; the exit code is that of EPILOG."""
    reports = []
    for name in args.files:
        report = _report(name, thorough=args.thorough)
        reports.append(report)
        if not args.json:
            print("\n".join(_words(report)), flush=True)
    code = max(report["exit"] for report in reports)
    if args.json:
        print(json.dumps({"exit": code, "files": reports}, indent=2))
    return code


def _report(name: str, *, thorough: bool) -> dict[str, Any]:
    """Everything known of one file, as JSON; ``exit`` is what it alone would give."""
    from vasa_jax.provenance.examine import examine_file
    from vasa_jax.provenance.manifest import read_manifest

    progress = Progress()
    try:
        mark = examine_file(
            name,
            wide=thorough,
            progress=lambda done, total: progress("frames", done, max(total, done + 1)),
        )
        manifest = read_manifest(name)
    except UserError as error:
        return {"file": name, "exit": UNREADABLE, "error": str(error)}
    finally:
        progress.close()
    if manifest.state == "tampered":
        code = TAMPERED
    elif mark.found or (manifest.state == "valid" and manifest.ours):
        code = FOUND
    else:
        code = NOT_FOUND
    table = mark.to_json()
    if mark.payload is not None:
        table["payload"]["release_name"] = _release_name(mark.payload.release_prefix)
    return {"file": name, "exit": code, "mark": table, "manifest": manifest.to_json()}


def _release_name(prefix: str) -> str | None:
    """Of a release that comes with the package, by the beginning of its hash."""
    import vasa_jax

    for path in (Path(vasa_jax.__file__).parent / "releases").glob("*/sha256"):
        if hashlib.sha256(path.read_bytes()).hexdigest().startswith(prefix):
            return path.parent.name
    return None


def _words(report: dict[str, Any]) -> list[str]:
    """The verdict on one file in a few lines."""
    if "error" in report:
        return [f"{report['file']}: not looked at: {report['error']}"]
    mark, manifest = report["mark"], report["manifest"]
    verdict = {
        FOUND: "made by vasa_jax; this is synthetic",
        NOT_FOUND: "nothing of vasa_jax found, which does not show that it is genuine",
        TAMPERED: "changed after it was signed",
    }[report["exit"]]
    return [f"{report['file']}: {verdict}", f"  mark      {_mark_words(mark)}",
            f"  manifest  {_manifest_words(manifest)}"]  # fmt: skip


def _mark_words(mark: dict[str, Any]) -> str:
    odds = _odds(mark["false_alarm"])
    if not mark["found"]:
        return f"not found (chance alone gives as much with a probability of up to {odds})"
    text = f"found; chance alone would give it with a probability below {odds}"
    payload = mark["payload"]
    if payload is None:
        text += "; what it says can't be read"
    else:
        known = payload["release_name"]
        release = f"{known} ({payload['release']})" if known else f"{payload['release']}..."
        text += f"; release {release}, made {payload['time']}, scheme {payload['scheme']}"
    seconds = sum(to - start for start, to in mark["marked"])
    whole = mark["frames"] / 25
    if seconds < whole - 0.5:
        first = mark["marked"][0][0]
        text += f"; in {seconds:.0f} of {whole:.0f} s, first at {first:.0f} s"
    return text


def _odds(probability: float) -> str:
    """A probability as a number and, when small, in words: 1e-09 (one in a thousand million)."""
    if probability > 0.01:
        return f"{min(probability, 1.0):.2g}"
    if probability <= 0.0:
        return "1e-300 (never)"
    exponent = math.floor(-math.log10(probability) + 1e-9)
    small = ("hundred", "thousand", "ten thousand", "hundred thousand", "million", "ten million",
             "hundred million", "thousand million")  # fmt: skip
    words = f"one in a {small[exponent - 2]}" if exponent < 10 else "one in more than a billion"
    return f"{probability:.0e} ({words})"


def _manifest_words(manifest: dict[str, Any]) -> str:
    state = manifest["state"]
    if state == "absent":
        return "absent"
    if state == "unknown":
        return f"not looked at: {'; '.join(manifest['problems'])}"
    who = manifest["generator"] or "an unnamed program"
    kind = {True: "synthetic", False: "not synthetic", None: "no word on its source"}
    text = (
        f"{'intact' if state == 'valid' else 'TAMPERED'}, by {who}: {kind[manifest['synthetic']]}"
    )
    if manifest["signer"]:
        text += f"; signed as {manifest['signer']!r}, for whom nobody vouches here"
    generation = manifest["generation"] or {}
    if generation.get("release"):
        text += f"; release {generation['release']} ({str(generation.get('release_sha256'))[:12]})"
    if generation.get("consent"):
        text += f"; consent: {generation['consent']}"
    if manifest["problems"]:
        text += f"; {', '.join(manifest['problems'])}"
    return text
