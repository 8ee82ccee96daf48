"""``vasa-jax check``: what is installed and where, what works, what to do about the rest."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from vasa_jax.cli.main import version
from vasa_jax.cli.optional import EXTRAS, install
from vasa_jax.runtime import compile_cache
from vasa_jax.runtime.places import typed

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "soundfile",
    "soxr", "pillow", "pi-heif", "av", "safetensors", "ai-edge-litert",
    "c2pa-python", "cryptography", "argcomplete",
)  # fmt: skip
# Files that others publish, or that are made once, by the variable that says where they are.
FOLDERS = {
    "VASA_FACEKIT": "synth: ICT-FaceKit's head instead of the simple one",
    "VASA_FACES": "training of stage 1: face files",
    "VASA_DATA": "training of stage 2: shards of motion",
    "VASA_MEDIA": "evaluation: real clips",
}


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
    yield from places()
    yield from optional_parts()


def places() -> Iterator[Finding]:
    """Where everything is: the package, and what it keeps outside of it."""
    yield _probe("package", lambda: str(_package()))
    yield _probe("releases", _releases)
    yield _probe("cache", _cache)
    yield _probe("identity", _identity)


def optional_parts() -> Iterator[Finding]:
    """What inference can do without: each extra, then what no package index has."""
    for name, extra in EXTRAS.items():
        missing = extra.missing()
        detail = extra.gives
        if missing:
            detail += f"; missing {', '.join(missing)}: {install(name)}"
        yield Finding(part=f"[{name}]", state="absent" if missing else "ok", detail=detail)
    there = shutil.which("flite") is not None
    yield Finding(
        part="flite", state="ok" if there else "absent",
        detail="synth: voices made of people's" + ("" if there else "; apt-get install flite"),
    )  # fmt: skip
    for name, gives in FOLDERS.items():
        chosen = os.environ.get(name, "")
        there = bool(chosen) and typed(os.path.expandvars(chosen)).exists()
        detail = f"{gives}; {chosen or 'not set'}{' is not there' if chosen and not there else ''}"
        yield Finding(part=f"${name}", state="ok" if there else "absent", detail=detail)


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
    from vasa_jax.face.find.detection import ASSETS

    models = sorted(ASSETS.glob("*.tflite"))
    if not models:
        raise FileNotFoundError(f"no .tflite file in {ASSETS}; install the package again")
    from ai_edge_litert.interpreter import Interpreter

    for model in models:
        Interpreter(model_path=str(model)).allocate_tensors()
    return ", ".join(model.stem for model in models)


def _package() -> Path:
    return Path(sys.modules["vasa_jax"].__path__[0])


def _releases() -> str:
    from vasa_jax.checkpoint.release import BUILT_IN, built_in
    from vasa_jax.io.fetch import cache_folder

    fetched = cache_folder() / "releases"
    count = len(list(fetched.glob("[!.]*"))) if fetched.is_dir() else 0
    return f"{', '.join(built_in())} in {BUILT_IN}; {count} fetched in {fetched}"


def _cache() -> str:
    folder = compile_cache.cache_dir()
    if folder is None:
        off = "VASA_CACHE" in os.environ
        return "switched off" if off else "none: no home, and no room for temporary files"
    programs = list(folder.glob("programs/[!.]*.program"))
    size = sum(p.stat().st_size for p in programs)
    there = next(p for p in (folder, *folder.parents) if p.exists())
    state = "" if os.access(there, os.W_OK) else "; can be read only"
    return f"{folder} ({len(programs)} compiled programs, {size / 1e6:.0f} MB{state}; $VASA_CACHE)"


def _identity() -> str:
    """Where manifests get their signature from; nothing is made here."""
    from vasa_jax.provenance.certificate import identity_folder

    path = identity_folder() / "identity.pem"
    return f"{path} ({'' if path.exists() else 'made with the first video; '}$VASA_IDENTITY)"


def _release(name: str) -> str:
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.tree import count

    loaded = load_release(name)
    return f"{count(loaded.params) / 1e6:.1f} M numbers, checksum good ({loaded.sha256[:12]})"


def _example() -> str:
    import vasa_jax
    from vasa_jax.io.audio import read_audio
    from vasa_jax.io.image import read_image

    portrait, speech = vasa_jax.example_portrait(), vasa_jax.example_speech()
    height, width = read_image(portrait).shape[:2]
    seconds = len(read_audio(speech)) / 16_000
    return (
        f"portrait {width}x{height} {portrait}, speech {seconds:.1f} s {speech}; "
        "vasa-jax generate --example -o out.mp4"
    )
