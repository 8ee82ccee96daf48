"""vasa_jax: one portrait and a speech signal in, a talking face out.

    import vasa_jax
    talker = vasa_jax.Talker(vasa_jax.load_release("lite"), "portrait.jpg")
    frames = list(talker.generate("speech.wav"))

Names are loaded when first used, so that ``import vasa_jax`` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all else here
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from vasa_jax.checkpoint.release import load_release as load_release
    from vasa_jax.generate.controls import controls as controls
    from vasa_jax.generate.talker import Talker as Talker

__all__ = [
    "Talker",
    "__version__",
    "controls",
    "example_portrait",
    "example_speech",
    "load_release",
]

_LAZY = {
    "load_release": "vasa_jax.checkpoint.release",
    "Talker": "vasa_jax.generate.talker",
    "controls": "vasa_jax.generate.controls",
}


def example_portrait() -> Path:
    """The bundled portrait; ATTRIBUTION.md beside it says whose it is."""
    return _example() / "portrait.png"


def example_speech() -> Path:
    """The bundled recording; ATTRIBUTION.md beside it says whose it is."""
    return _example() / "speech.flac"


def _example() -> Path:
    from pathlib import Path

    return Path(__file__).parent / "assets" / "example"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("vasa-jax")
        except metadata.PackageNotFoundError:
            return "0+unknown"
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
