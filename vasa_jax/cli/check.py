"""``vasa-jax check``: what is installed, what works, what to do about the rest."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path

from vasa_jax.cli.main import EXTRA_OF, version
from vasa_jax.core import compile_cache

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "soundfile",
    "soxr", "pillow", "pi-heif", "av", "safetensors", "ai-edge-litert",
    "c2pa-python", "cryptography",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. ``state`` is "ok", "absent" (optional) or "broken"."""

    part: str
    state: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", default="lite", help="name or folder to verify (lite)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 when everything that inference needs works, else 1."""
    found = list(findings(release=args.release))
    broken = [f for f in found if f.state == "broken"]
    if args.json:
        report = {"ok": not broken, "findings": [dataclasses.asdict(f) for f in found]}
        print(json.dumps(report, indent=2))
    else:
        marks = {"ok": "ok     ", "absent": "absent ", "broken": "BROKEN "}
        width = max(len(f.part) for f in found)
        for f in found:
            print(f"{marks[f.state]} {f.part:<{width}}  {f.detail}")
        print(f"\n{len(broken)} broken" if broken else "\nEverything that generate needs works.")
    return 1 if broken else 0


def findings(*, release: str) -> Iterator[Finding]:
    """The report, part by part. A part that raises is reported as broken, with its error."""
    yield _probe("vasa-jax", version)
    yield _probe("python", lambda: f"{platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        yield _probe(package, functools.partial(metadata.version, package))
    yield _probe("devices", _devices)
    yield _probe("video codecs", _codecs)
    yield _probe("sound formats", _sound_formats)
    yield _probe("face networks", _face_networks)
    yield _probe(f"release {release}", lambda: _release(release))
    yield _probe("example", _example)
    folder = compile_cache.cache_dir()
    yield Finding(part="cache", state="ok", detail=str(folder) if folder else "switched off")
    for module, extra in EXTRA_OF.items():
        there = util.find_spec(module) is not None
        detail = "" if there else f"optional: pip install 'vasa-jax[{extra}]'"
        yield Finding(part=module, state="ok" if there else "absent", detail=detail)


def _probe(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part=part, state="ok", detail=look())
    except Exception as error:  # a doctor must survive whatever the patient has
        name = type(error).__name__
        return Finding(part=part, state="broken", detail=f"{name}: {' '.join(str(error).split())}")


def _devices() -> str:
    import jax

    devices = ", ".join(f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices())
    return f"{devices}; {jax.jit(lambda x: x + 1)(1)} = 1 + 1"


def _codecs() -> str:
    import av

    for name in ("libx264", "aac"):
        av.codec.Codec(name, "w")
    return "H.264 (libx264) and AAC can be written"


def _sound_formats() -> str:
    import soundfile

    formats = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    if missing:
        return f"soundfile lacks {', '.join(missing)}; PyAV reads them instead"
    return "wav, flac, ogg, mp3; the rest by PyAV"


def _face_networks() -> str:
    import vasa_jax.face

    assets = Path(vasa_jax.face.__path__[0]) / "assets"
    models = sorted(assets.glob("*.tflite"))
    if not models:
        raise FileNotFoundError(
            "no .tflite file in vasa_jax/face/assets; install the package again"
        )
    from ai_edge_litert.interpreter import Interpreter

    for model in models:
        Interpreter(model_path=str(model)).allocate_tensors()
    return ", ".join(model.stem for model in models)


def _release(name: str) -> str:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.tree import count

    loaded = load_release(name)
    return f"{count(loaded.params) / 1e6:.1f} M numbers, checksum good ({loaded.sha256[:12]})"


def _example() -> str:
    from vasa_jax.io.audio import read_audio
    from vasa_jax.io.image import read_image

    example = Path(sys.modules["vasa_jax"].__path__[0]) / "assets" / "example"
    height, width = read_image(example / "portrait.png").shape[:2]
    seconds = len(read_audio(example / "speech.flac")) / 16_000
    return f"portrait {width}x{height}, speech {seconds:.1f} s"
