"""The card of a comparison: Markdown tables, and a plot where Pillow is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.side_by_side.compare import ratios
from tools.side_by_side.worker import FORMS

SIZES = {"lite": "lite release", "full": "full model (configs/face_512.py, motion_base.py)"}


def _name(row: dict[str, Any]) -> str:
    return f"{row['title']}, batch {row['batch']}"


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    if result.get("not_offered"):
        return "not offered"
    if "failed" in result or "ms" not in result:
        return "failed"
    return f"{result['ms']:.4g} ({result['p10']:.4g} .. {result['p90']:.4g})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |", "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows), "",
    ]  # fmt: skip


def verdict(row: dict[str, Any], bfloat16: bool) -> str:
    """The best PyTorch time over ours at one precision, and whose it is."""
    known = [r for r in ratios(row) if FORMS[r[1]][2] == bfloat16]
    if not known:
        return "-"
    theirs, _, ratio = min(known, key=lambda r: r[2])
    word = "level" if 0.97 < ratio < 1.03 else "XLA" if ratio > 1 else "PyTorch"
    return f"{ratio:.2f} ({theirs.split(',')[0]}; {word})"


def overall(row: dict[str, Any]) -> str:
    """The best PyTorch time at any precision over the best of ours."""
    best: dict[str, float] = {}
    for form, result in row["forms"].items():
        if "ms" in result and "failed" not in result:
            side = FORMS[form][0]
            best[side] = min(best.get(side, float("inf")), result["ms"])
    return f"{best['torch'] / best['xla']:.2f}" if len(best) == 2 else "-"


def describe(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    forms, size = card["forms"], card["size"]
    machine, rows = card["machine"], card["rows"]
    done = [r for r in rows if "skipped" not in r]
    lines = [
        f"# XLA against PyTorch: {SIZES[size]}, {card['device']}", "",
        f"`{card['command']}`, {card['date']}, commit {card['commit']}, "
        f"{card['seconds'] / 60:.1f} minutes.", "",
        f"{machine['cores']} cores of {machine['cpu']}; device {machine['device']}. "
        + ", ".join(f"{k} {v}" for k, v in card["versions"].items())
        + f". Load average before: {card['load_before']}.", "",
    ]  # fmt: skip
    if card["quick"]:
        lines += [
            "**Quick run**: fewer repetitions and smaller batches"
            + (", and a model of half the side, volume and widths" if size == "full" else "")
            + ". For a look, not for quotation.", "",
        ]  # fmt: skip
    if card["layers"]:
        lines += [
            "## Parity, layer by layer", "",
            "Float32 on the CPU, both given the same inputs at every layer. "
            + card["layers_note"], "",
            *_table(
                ("layer", "shape", "largest gap", "allowed", ""),
                [(r["layer"], "x".join(map(str, r["shape"])), f"{r['gap']:.2g}",
                  f"{r['allowed']:.2g}", "ok" if r["ok"] else "**not**") for r in card["layers"]],
            ),
        ]  # fmt: skip
    lines += [
        "## Time, ms per call", "",
        "Median (10th .. 90th percentile) of interleaved runs. Ratios are the best PyTorch time"
        " over that of XLA: above 1 XLA is faster.", "",
        *_table(
            ("part", *forms, "f32 ratio", "bf16 ratio", "best of any precision"),
            [(_name(r), *(_cell(r["forms"].get(f)) for f in forms), verdict(r, False),
              verdict(r, True), overall(r)) for r in done],
        ),
    ]  # fmt: skip
    fps = [(r, {f: 1e3 * r["frames"] / x["ms"] for f, x in r["forms"].items()
                if "ms" in x and "failed" not in x}) for r in done if r["frames"]]  # fmt: skip
    if fps:
        lines += [
            "## Frames per second", "",
            *_table(
                ("part", *forms),
                [(_name(r), *(f"{v[f]:.1f}" if f in v else "-" for f in forms)) for r, v in fps],
            ),
        ]  # fmt: skip
    lines += [
        "## Results against XLA in float32", "",
        "Mean gap of what is timed, in deviations of the result (a loss and a gradient norm: in"
        " their own size). Float32 forms beyond the limit would not have been timed.", "",
        *_table(
            ("part", *(f for f in forms if f != "XLA")),
            [(_name(r), *(f"{r['parity'][f]['relative']:.1e}" if f in r["parity"] else "-"
                          for f in forms if f != "XLA")) for r in done],
        ),
        "## First call, s, and peak memory, MB", "",
        "First call: tracing, compiling and one run. On a CPU nothing is cached and forms build one"
        " after the other; on a GPU all build at the same time, and what an earlier part of the run"
        " compiled is not compiled again. Memory: of the process while it runs on a CPU (framework"
        " and weights included), of the allocator on a GPU (XLA's is the peak since its process"
        " began).", "",
        *_table(
            ("part", *forms),
            [(_name(r), *(f"{x['first_call_s']:.1f} s, {x.get('peak_mb') or 0:.0f} MB"
                          if (x := r["forms"].get(f)) and "ms" in x else "-" for f in forms))
             for r in done],
        ),
    ]  # fmt: skip
    notes = [
        f"- {_name(r)}, {f}: {x['failed']}"
        for r in rows for f, x in r["forms"].items() if "failed" in x
    ]  # fmt: skip
    notes += [f"- {_name(r)}: not run, {r['skipped']}" for r in rows if "skipped" in r]
    if notes:
        lines += ["## What did not run", "", *sorted(set(notes)), ""]
    return "\n".join([*lines, "## How", "", HOW, ""])


HOW = """\
Both sides get the same weights, inputs and noise for the check of results; for timing each draws
its own noise. XLA runs the functions of the package under `jax.jit`. PyTorch: twins in
`tools/torch_ref`, channels-last, folded weight standardisation, fused scaled-dot-product attention
and AdamW, what does not depend on the diffusion time computed once; eager under `inference_mode`
with `F.grid_sample`; compiled by Inductor without dynamic shapes, sampling by fused gathers, with
CUDA graphs on a GPU; bf16 under autocast with weights stored in bfloat16. Float32 on a GPU means
TF32 for both. The rasteriser is one `scatter_reduce_(amax)`, the best that PyTorch has without a
kernel of one's own. Training steps: forward, backward, clipping, AdamW and weight average on
a given batch; of the face, the pixel terms on given geometry. On a CPU the full face's step is
that of the `:smoke` sizes of its config, PyTorch's in its default layout (channels-last crashes
there). Its end-to-end hop has no trained link between motion
and face: it renders given motions."""


COLOURS = {
    "torch eager": (244, 177, 131), "torch.compile": (200, 80, 30), "XLA": (30, 90, 170),
    "torch eager, bf16": (235, 205, 150), "torch.compile, bf16": (190, 140, 20),
    "XLA, bf16": (90, 160, 220),
}  # fmt: skip


def draw(card: dict[str, Any], path: Path) -> bool:
    """Bars of speed relative to XLA in float32; False where Pillow is missing."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return False
    rows = [r for r in card["rows"] if "ms" in r["forms"].get("XLA", {})]
    forms = [f for f in card["forms"] if any("ms" in r["forms"].get(f, {}) for r in rows)]
    left, width, bar, gap, top = 330, 560, 11, 12, 54
    height = top + sum(gap + bar * len(forms) for _ in rows) + 24
    image = Image.new("RGB", (left + width + 70, height), "white")
    pen = ImageDraw.Draw(image)
    speeds = [
        {f: r["forms"]["XLA"]["ms"] / r["forms"][f]["ms"] for f in forms
         if "ms" in r["forms"].get(f, {}) and "failed" not in r["forms"][f]} for r in rows
    ]  # fmt: skip
    most = max([1.0, *(v for s in speeds for v in s.values())])
    pen.text((10, 8), f"Speed relative to XLA in float32 (longer is faster): "
             f"{SIZES[card['size']]}, {card['machine']['device']}", fill=(20, 20, 20))  # fmt: skip
    for i, form in enumerate(forms):
        pen.rectangle((10 + 150 * i, 30, 20 + 150 * i, 40), fill=COLOURS[form])
        pen.text((24 + 150 * i, 29), form, fill=(60, 60, 60))
    y = top
    for row, speed in zip(rows, speeds, strict=True):
        pen.text((10, y + bar * len(forms) / 2 - 6), _name(row)[:52], fill=(20, 20, 20))
        for form in forms:
            if form in speed:
                end = left + width * speed[form] / most
                pen.rectangle((left, y, end, y + bar - 2), fill=COLOURS[form])
                pen.text((end + 4, y - 2), f"{speed[form]:.2f}", fill=(90, 90, 90))
            y += bar
        y += gap
    one = left + width / most
    pen.line((one, top - 6, one, y), fill=(120, 120, 120))
    part = path.with_name(f".{path.name}.part")
    image.quantize(16).save(part, format="PNG", optimize=True)
    part.replace(path)
    return True
