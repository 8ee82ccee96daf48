"""XLA and PyTorch side by side; see tools/bench_vs_torch and tools/side_by_side."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools import card as cards

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "experiments" / "benchmarks"
FORMS = {
    "cpu": ("torch eager", "torch.compile", "XLA", "torch.compile, bf16"),
    "gpu": ("torch eager", "torch.compile", "XLA", "torch eager, bf16", "torch.compile, bf16",
            "XLA, bf16"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    missing = why_not(args.device)
    if missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    if args.plot:
        card = json.loads(args.plot.read_text())
        return plot(card, args.plot.with_suffix(".png"))
    if args.device == "cpu":
        from vasa_jax.runtime.machine import use_cores

        use_cores(args.cores)
    card = measure(args, deadline=time.monotonic() + args.minutes * 60)
    keep(card, args)
    return 0 if any("ms" in f for row in card["rows"] for f in row["forms"].values()) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench_vs_torch", description=(__doc__ or "").split(";")[0]
    )
    parser.add_argument("--size", choices=("lite", "full"), default="lite")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer; says so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the card's numbers here, too")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="names of parts")
    parser.add_argument("--forms", nargs="+", metavar="FORM", help=", ".join(FORMS["gpu"]))
    parser.add_argument("--cores", type=int, default=2, help="on a CPU; 0 leaves all (default 2)")
    parser.add_argument("--part-seconds", type=float, help="of timing per part")
    parser.add_argument("--minutes", type=float, default=120, help="nothing is begun later")
    parser.add_argument("--no-layers", action="store_true", help="leaves the table of layers out")
    parser.add_argument("--name", default="vs_torch", help="first word of the card's file name")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--plot", type=Path, metavar="CARD.json", help="draws its plot and stops")
    args = parser.parse_args(argv)
    unknown = set(args.forms or ()) - set(FORMS["gpu"])
    if unknown:
        parser.error(f"no form {', '.join(sorted(unknown))}; there are {', '.join(FORMS['gpu'])}")
    if args.plot and not args.plot.is_file():
        parser.error(f"no card {args.plot}")
    return args


def why_not(device: str) -> str | None:
    """What is missing for a comparison on ``device``, in one line; None: nothing."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; pip install -e '.[torch]' brings it"
    if device == "cpu":
        return None
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode:
        return "PyTorch sees no GPU here (torch.cuda.is_available() is False); try --device cpu"
    return why_not_jax()


def why_not_jax() -> str | None:
    """Why JAX cannot run on a GPU, in one line; None: it can."""
    code = "import jax, sys; sys.exit(not any(d.platform == 'gpu' for d in jax.devices()))"
    if subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode:
        return "JAX sees no GPU here; install jax[cuda12], or try --device cpu"
    return None


def measure(args: argparse.Namespace, *, deadline: float) -> dict[str, Any]:
    """Layers, then every part in every form; nothing is begun after ``deadline``."""
    began, load = time.monotonic(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    layers, note = ([], "") if args.no_layers else layer_table(args, deadline)
    from tools.side_by_side.compare import Comparison, Settings
    from tools.side_by_side.scenes import parts

    seconds = args.part_seconds or (6.0 if args.quick else 40.0)
    settings = Settings(
        size=args.size, device=args.device, quick=args.quick,
        forms=tuple(args.forms or FORMS[args.device]), part_seconds=seconds,
        rounds=(3, 12) if args.quick else (7, 60),
        build_seconds=150.0 if args.device == "gpu" else 1200.0,
    )  # fmt: skip
    listed = parts(args.size, args.device, args.quick)
    chosen = [p for p in listed if not args.only or p.name in args.only]
    if not chosen:
        raise SystemExit(f"error: no such part; there are {', '.join(p.name for p in listed)}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Caches of this run alone, so that compile times are cold.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "inductor")
        if args.device == "gpu":  # where time is short: parts share programs
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "xla")
            os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        log = args.out / f".{args.name}_{args.size}.log"
        comparison = Comparison(settings, lambda text: print(text, flush=True), log)
        try:
            comparison.run(chosen, deadline)
        except KeyboardInterrupt:
            print("interrupted: the card has what was done", file=sys.stderr)
    log.unlink(missing_ok=True)
    told = comparison.about
    about = told.get("XLA") or next(iter(told.values()), {})
    date = datetime.date.today().isoformat()
    return {
        "date": date, "commit": cards.commit(), "seconds": time.monotonic() - began,
        "command": shlex.join(
            [f"tools/{Path(sys.argv[0]).stem}", *map(os.path.basename, sys.argv[1:])]
        ),
        "size": args.size, "device": args.device, "quick": args.quick,
        "machine": machine(about), "versions": versions(about), "load_before": load,
        "forms": list(settings.forms), "layers": layers, "layers_note": note,
        "rows": comparison.rows,
    }  # fmt: skip


def layer_table(args: argparse.Namespace, deadline: float) -> tuple[list[dict[str, Any]], str]:
    """Rows of ``side_by_side.parity``, by a process of its own; stops when a layer is off."""
    print(f"{args.size}: parity, layer by layer", flush=True)
    command = [sys.executable, "-m", "tools.side_by_side.parity", args.size]
    try:
        result = subprocess.run(
            command + (["quick"] if args.quick or args.device == "gpu" else []), cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "VASA_CACHE": "off"}, capture_output=True,
            text=True, timeout=max(deadline - time.monotonic(), 1.0), check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [], ""
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it failed"])[-1]
        raise SystemExit(f"error: the table of layers could not be made: {last}") from None
    table = json.loads(result.stdout.splitlines()[-1])
    off = [row["layer"] for row in table["rows"] if not row["ok"]]
    if off:
        raise SystemExit(f"error: these layers differ, nothing is timed: {', '.join(off)}")
    return table["rows"], table["note"]


def machine(about: dict[str, Any]) -> dict[str, Any]:
    """The processor and the device."""
    from vasa_jax.runtime.machine import processor

    cores = about.get("threads") or os.cpu_count()
    device = about.get("device", "unknown")
    short = f"cpu{cores}" if device == "cpu" else device.replace(" ", "-").lower()
    return {"cpu": processor(), "cores": cores, "device": device, "short": short}


def versions(about: dict[str, Any]) -> dict[str, str]:
    return {"python": platform.python_version()} | about.get("versions", {})


def keep(card: dict[str, Any], args: argparse.Namespace) -> None:
    """Card and plot into ``args.out``, and the numbers into ``args.json``."""
    from tools.side_by_side.report import describe

    text = describe(card)
    quick = "_quick" if card["quick"] else ""
    stem = f"{args.name}_{card['size']}_{card['machine']['short']}{quick}_{card['date']}"
    cards.write(args.out, stem, text, card)
    plot(card, args.out / f"{stem}.png")
    if args.json:
        part = args.json.with_name(f".{args.json.name}.part")
        part.write_text(json.dumps(card, indent=1) + "\n")
        part.replace(args.json)


def plot(card: dict[str, Any], path: Path) -> int:
    from tools.side_by_side.report import draw

    if not draw(card, path):
        print("no plot: Pillow is missing; tools/bench_vs_torch --plot CARD.json draws it later",
              file=sys.stderr)  # fmt: skip
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
