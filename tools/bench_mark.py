"""Evidence for the invisible mark, in parts that append to one folder.

    tools/bench_mark clips OUT --portraits P/*.jpg --speech S/*.wav     unmarked clips, lossless
    tools/bench_mark attack OUT [--limit N]         the marked clips after attacks, as means
    tools/bench_mark robust OUT                     what is found in them -> robust.jsonl
    tools/bench_mark clean OUT FILE...              scores where no mark is -> clean.jsonl
    tools/bench_mark cost OUT                       time per frame -> cost.json
    tools/bench_mark card OUT --name NAME           tables, plot and difference picture

Every row is written when it is measured; a part that is run again leaves out what is there.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.mark_attacks import FPS, SECONDS, attacks, coded, each, read, turned

RELEASE = "3fa9c" + 59 * "0"
MADE = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
STILL = "still, JPEG 75"


# -- parts -----------------------------------------------------------------------------------------


def clips(args: argparse.Namespace) -> None:
    """Five seconds of each portrait, unmarked: the whole picture, and the model's square."""
    import av

    import vasa_jax
    from vasa_jax.core.errors import UserError
    from vasa_jax.io.audio import read_audio

    folder = args.out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    release = vasa_jax.load_release("lite")
    for i, portrait in enumerate(args.portraits):
        speech = np.resize(read_audio(args.speech[i % len(args.speech)]), SECONDS * 16_000)
        try:
            talker = vasa_jax.Talker(release, portrait, max_side=1024)
        except UserError as error:
            print(f"{portrait}: {error}", file=sys.stderr)
            continue
        for kind in ("full", "crop"):
            target = folder / f"{Path(portrait).stem}_{kind}.mkv"
            if target.exists():
                continue
            frames = talker.generate(speech, seed=i, frame=kind, mark=False)
            part = target.with_suffix(".part.mkv")
            with av.open(str(part), "w") as container:
                stream = container.add_stream("libx264rgb", rate=FPS)
                stream.pix_fmt, stream.options = "rgb24", {"crf": "0", "preset": "ultrafast"}
                for n, frame in enumerate(frames):
                    frame = np.ascontiguousarray(
                        frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
                    )
                    if n == 0:  # the codec opens with the first frame
                        stream.height, stream.width = frame.shape[:2]
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode(None))
            part.replace(target)
            print(target, flush=True)


def attack(args: argparse.Namespace) -> None:
    """Every attack on every clip, and JPEG on a still of each, as means that detectors look at."""
    from vasa_jax.provenance.detector import luminance
    from vasa_jax.provenance.examine import stretches_of
    from vasa_jax.provenance.payload import Payload
    from vasa_jax.provenance.watermark import Marker

    files = sorted((args.out / "clips").glob("*.mkv"))
    # Squares and whole pictures in turn, so that a run that is cut short has both.
    kinds = [[f for f in files if f.stem.endswith(kind)] for kind in ("crop", "full")]
    files = [kind[i] for i in range(max(map(len, kinds))) for kind in kinds if i < len(kind)]
    for index, file in enumerate(files[: args.limit]):
        table = attacks(index // 2)
        targets = {
            name: args.out
            / "attacked"
            / file.stem
            / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.npz"
            for name in (*table, STILL)
        }
        todo = [name for name, target in targets.items() if not target.exists()]
        if not todo:
            continue
        plain = read(file)[: SECONDS * FPS]
        marker = Marker(Payload.of(RELEASE, MADE), *plain.shape[1:3])
        marked = each(plain, marker)
        error = np.square(marked.astype(np.float32) - plain).mean((1, 2, 3))
        written = coded(marked, 18)
        for name in todo:
            left = _jpeg(marked[60]) if name == STILL else table[name](written)
            stretches = list(stretches_of(iter(left)))
            part = targets[name].with_suffix(".part.npz")
            part.parent.mkdir(parents=True, exist_ok=True)
            np.savez(
                part, clip=file.stem, attack=name, size=plain.shape[2:0:-1],
                psnr=10 * math.log10(255**2 / float(error.max())),
                starts=[s[0] for s in stretches], counts=[s[1] for s in stretches],
                means=np.stack([luminance(s[2]) for s in stretches]),
            )  # fmt: skip
            part.replace(targets[name])
        print(f"{index + 1} of {len(files)}: {file.stem}", flush=True)


def _jpeg(picture: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=75)
    return np.asarray(Image.open(out))[None]


def robust(args: argparse.Namespace) -> None:
    """What is found in what ``attack`` left."""
    from vasa_jax.provenance.examine import examine_stretches
    from vasa_jax.provenance.payload import Payload

    path = args.out / "robust.jsonl"
    done = {(r["clip"], r["attack"]) for r in _rows(path)}
    said = Payload.of(RELEASE, MADE)
    for file in sorted((args.out / "attacked").glob("*/*.npz")):
        if file.stem.endswith(".part"):
            continue
        with np.load(file) as left:
            clip, name = str(left["clip"]), str(left["attack"])
            if (clip, name) in done:
                continue
            stretches = list(zip(left["starts"].tolist(), left["counts"].tolist(), left["means"],
                                 strict=True))  # fmt: skip
            row = {"clip": clip, "size": left["size"].tolist(), "attack": name,
                   "psnr": float(left["psnr"])}  # fmt: skip
        verdict = examine_stretches(stretches)
        _append(path, row | {
            "found": verdict.found, "score": verdict.score, "false_alarm": verdict.false_alarm,
            "payload": verdict.payload == said,
            "wrong_payload": verdict.payload not in (None, said),
        })  # fmt: skip


def clean(args: argparse.Namespace) -> None:
    """Scores of material without the mark, as it is, mirrored, scaled, cropped and turned."""
    from vasa_jax.provenance import detector
    from vasa_jax.provenance.examine import SHORTEST

    path = args.out / "clean.jsonl"
    done = {(r["file"], r["start"], r["change"]) for r in _rows(path)}
    for number, name in enumerate(args.files):
        for start, count, mean in _means(name):
            if count < SHORTEST and count > 1:
                continue
            height, width = mean.shape[:2]
            changes = {
                "none": lambda x: x,
                "mirrored": lambda x: x[:, ::-1],
                "half": lambda x, h=height, w=width: _resized(x, h // 2, w // 2),
                "cropped": lambda x, h=height, w=width: x[h // 9 :, w // 13 :],
                "turned": lambda x, n=number: turned(x[None].astype(np.uint8), n % 7 - 3.0)[0],
            }
            wanted = list(changes) if args.changes == "all" else ["none"]
            if args.changes == "turns":  # one each, in turn
                wanted = [list(changes)[(number + start // 125) % len(changes)]]
            for change in wanted:
                key = (_name(name), start, change)
                picture = np.ascontiguousarray(changes[change](mean))
                if key in done or min(picture.shape[:2]) < 64:
                    continue
                found = detector.find(picture)
                _append(path, {
                    "file": key[0], "start": start, "change": change, "frames": count,
                    "score": found.score, "looks": found.looks, "alarms": found.alarms,
                })  # fmt: skip
        print(f"{number + 1} of {len(args.files)}", end="\r", file=sys.stderr, flush=True)


def cost(args: argparse.Namespace) -> None:
    """CPU time of the mark and the renderer a frame, and of a search where no mark is."""
    import vasa_jax
    from vasa_jax.provenance import detector
    from vasa_jax.provenance.payload import Payload
    from vasa_jax.provenance.watermark import Marker

    table: dict[str, Any] = {"mark_ms": {}, "search_s": {}}
    rng = np.random.default_rng(0)
    for side in (256, 512, 720, 1024):
        frame = rng.integers(0, 256, (side, side, 3), np.uint8)
        marker = Marker(Payload.of(RELEASE), side, side)
        table["mark_ms"][str(side)] = _milliseconds(lambda m=marker, f=frame: m(f), 60)
    for height, width in ((256, 256), (512, 512), (1080, 1920)):
        grey = rng.uniform(0, 255, (height, width)).astype(np.float32)
        took = _milliseconds(lambda g=grey: detector.find(g), 3) / 1e3
        table["search_s"][f"{width}x{height}"] = took
    talker = vasa_jax.Talker("lite", vasa_jax.example_portrait())
    engine, appearance = talker.engine, talker.appearance
    motion = np.repeat(engine.rest(appearance)[None], 4, 0)
    cost_ms = _milliseconds(lambda: engine.draw(appearance, motion), 8)
    table["render_ms_per_frame"] = cost_ms / 4
    _write(args.out / "cost.json", json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


def _milliseconds(run: Callable[[], object], count: int) -> float:
    """CPU time of one call, all threads; unlike the clock it stands other load on the machine."""
    run()
    began = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - began) * 1e3 / count


# -- the card --------------------------------------------------------------------------------------


def card(args: argparse.Namespace) -> None:
    """Tables in Markdown and JSON, the tail's plot, and an amplified difference."""
    from tools import card as cards

    robust_rows, clean_rows = _rows(args.out / "robust.jsonl"), _rows(args.out / "clean.jsonl")
    table = json.loads((args.out / "cost.json").read_text())
    summary = {
        "commit": cards.commit(), "robust": _survival(robust_rows), "clean": _tail(clean_rows),
        "psnr": {"lowest": min(r["psnr"] for r in robust_rows),
                 "median": float(np.median([r["psnr"] for r in robust_rows]))},
        "cost": table,
    }  # fmt: skip
    cards.write(args.cards, args.name, _markdown(summary, args.name), summary)
    _plot(clean_rows, robust_rows, args.out / "tail.png")
    _difference(args.out / "difference.png")


def _survival(rows: list[dict]) -> list[dict]:
    out = []
    for attack in dict.fromkeys(r["attack"] for r in rows):
        entry: dict[str, object] = {"attack": attack}
        for kind in ("crop", "full"):
            part = [r for r in rows if r["attack"] == attack and r["clip"].endswith(kind)]
            if part:
                entry[kind] = {
                    "clips": len(part),
                    "found": sum(r["found"] for r in part),
                    "payload": sum(r["payload"] for r in part),
                    "wrong": sum(r["wrong_payload"] for r in part),
                    "highest_false_alarm": max(r["false_alarm"] for r in part),
                }
        out.append(entry)
    return out


def _tail(rows: list[dict]) -> dict:
    alarms = np.array([r["alarms"] for r in rows])
    seconds = sum(r["frames"] for r in rows if r["frames"] > 1) / FPS
    return {
        "searches": len(rows), "video_hours": seconds / 3600,
        "stills": sum(r["frames"] == 1 for r in rows),
        "highest_score": max(r["score"] for r in rows),
        "lowest_bound": float(alarms.min()),
        "false_alarms": int((alarms <= 1e-6).sum()),
        "share_at_or_below": {f"{p}": float((alarms <= p).mean()) for p in (1.0, 0.3, 0.1, 0.01)},
    }  # fmt: skip


def _markdown(summary: dict, name: str) -> str:
    lines = [
        f"# The invisible mark ({name})", "",
        f"`tools/bench_mark`, commit {summary['commit']}.", "",
        "Found and payload read, of how many clips of 5 s; the highest bound on a false alarm",
        "among them (found: at most 1e-6).",
        "", "| after | 256 px squares: found | payload | highest "
        "| whole pictures: found | payload | highest |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in summary["robust"]:
        cells = [row["attack"]]
        for kind in ("crop", "full"):
            part = row.get(kind)
            cells += (
                [f"{part['found']} of {part['clips']}", f"{part['payload']}",
                 f"{part['highest_false_alarm']:.0e}"] if part else ["", "", ""]
            )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    parts = [row[k] for row in summary["robust"] for k in ("crop", "full") if k in row]
    tried, found, payload, wrong = (
        sum(p[k] for p in parts) for k in ("clips", "found", "payload", "wrong")
    )
    psnr, tail, cost_ms = summary["psnr"], summary["clean"], summary["cost"]
    lines += ["", f"In all found {found} of {tried} ({100 * found / tried:.2f} %), payload read "
              f"{payload} ({100 * payload / tried:.1f} %), read wrongly {wrong}. PSNR of the "
              f"worst frame of each clip: lowest {psnr['lowest']:.1f} dB, median "
              f"{psnr['median']:.1f} dB.", "",
              "## Where no mark is", "",
              f"{tail['searches']} searches of {tail['video_hours']:.2f} hours of video and "
              f"{tail['stills']} stills: {tail['false_alarms']} false alarms, highest score "
              f"{tail['highest_score']:.2f}, lowest bound {tail['lowest_bound']:.2g}.", "",
              "| bound on a false alarm | share of searches at or below |",
              "|---|---|"]  # fmt: skip
    for level, share in tail["share_at_or_below"].items():
        lines.append(f"| {level} | {share:.2g} |")
    render = cost_ms["render_ms_per_frame"]
    lines += ["", "## Cost", "", "CPU milliseconds per frame.", "", "| what | ms | of the render |",
              "|---|---|---|", f"| render, 256 px | {render:.1f} | |"]  # fmt: skip
    for side, ms in cost_ms["mark_ms"].items():
        lines.append(f"| mark, {side} px | {ms:.2f} | {100 * ms / render:.1f} % |")
    lines += ["", "CPU seconds of a search of a stretch (5 s) where no mark is, which looks",
              "everywhere.", "", "| picture | s |", "|---|---|"]  # fmt: skip
    for size, seconds in cost_ms["search_s"].items():
        lines.append(f"| {size} | {seconds:.1f} |")
    return "\n".join([*lines, ""])


def _plot(clean_rows: list[dict], robust_rows: list[dict], target: Path) -> None:
    """How often a bound is reached without the mark: never more often than it says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for rows, key, name in (
        (clean_rows, "alarms", "clean material"), (robust_rows, "false_alarm", "marked, attacked")
    ):  # fmt: skip
        bound = np.sort([max(r[key], 1e-40) for r in rows])
        axes.step(bound, np.arange(1, len(bound) + 1) / len(bound), where="post",
                  label=f"{name}, {len(bound)} searches")  # fmt: skip
    p = np.geomspace(1e-40, 1.0, 100)
    axes.plot(p, p, "--", color="grey", label="as often as the bound allows")
    axes.axvline(1e-6, color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=(1e-40, 1e2), ylim=(1e-4, 1.5),
             xlabel="bound on a false alarm", ylabel="share of searches at or below")  # fmt: skip
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def _difference(target: Path) -> None:
    """The bundled portrait, marked, and thirty times what was added."""
    import vasa_jax
    from vasa_jax.io.image import contact_sheet, read_image, write_image
    from vasa_jax.provenance.payload import Payload
    from vasa_jax.provenance.watermark import Marker

    plain = read_image(vasa_jax.example_portrait())
    marked = Marker(Payload.of(RELEASE), *plain.shape[:2])(plain)
    added = marked.astype(int) - plain
    more = np.clip(128 + 30 * added, 0, 255).astype(np.uint8)
    names = ["plain", "marked", "difference x 30"]
    write_image(target, contact_sheet([[plain, marked, more]], columns=names, cell=plain.shape[0]))


# -- files -----------------------------------------------------------------------------------------


def _means(name: str) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first frame, number, mean picture) of a video, a picture, or the images of an .npz."""
    from vasa_jax.io.image import read_image
    from vasa_jax.io.video import read_video
    from vasa_jax.provenance.examine import is_picture, stretches_of

    if name.endswith(".npz"):
        with np.load(name) as arrays:
            for i, image in enumerate(arrays["images"]):
                yield i, 1, image.astype(np.float32)
    elif is_picture(name):
        yield 0, 1, read_image(name, max_side=1024).astype(np.float32)
    else:
        yield from stretches_of(read_video(name))


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    channels = [
        np.asarray(Image.fromarray(picture[..., i]).resize((width, height), Image.Resampling.BOX))
        for i in range(3)
    ]
    return np.stack(channels, -1)


def _name(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    for run in (clips, attack, robust, clean, cost, card):
        part = parts.add_parser(run.__name__, help=(run.__doc__ or "").splitlines()[0])
        part.add_argument("out", type=Path)
        part.set_defaults(run=run)
        if run is clips:
            part.add_argument("--portraits", nargs="+", required=True)
            part.add_argument("--speech", nargs="+", required=True)
        if run is attack:
            part.add_argument("--limit", type=int)
        if run is clean:
            part.add_argument("files", nargs="+")
            part.add_argument("--changes", choices=("none", "turns", "all"), default="all")
        if run is card:
            part.add_argument("--name", required=True)
            part.add_argument("--cards", type=Path, default=Path("experiments/benchmarks"))
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
