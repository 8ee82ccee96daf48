"""A package of more than five files says what each of them is, and names none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vasa_jax"
MANY = 5


def files_of(folder: Path) -> set[str]:
    """Modules of a package and of those below it that have no README, by name."""
    found = {path.name for path in folder.glob("*.py")}
    for below in folder.iterdir():
        if (below / "__init__.py").exists() and not (below / "README.md").exists():
            found |= files_of(below)
    return found - {"__init__.py"}


PACKAGES = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_readme_names_what_is_there(folder: Path) -> None:
    files = files_of(folder)
    readme = folder / "README.md"
    if not readme.exists():
        assert len(files) <= MANY, f"{folder.name}/ has {len(files)} files and no README.md"
        return
    if folder.name == "provenance":
        return  # about marks and manifests, for people
    text = readme.read_text(encoding="utf-8")
    named = re.findall(r"`([\w/.]+\.py)`", text)
    everywhere = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    root = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.parent.glob("*/*.py")}
    gone = [
        name for name in named
        if name not in everywhere | root and not list(folder.rglob(name)) and name != "NAME.py"
    ]  # fmt: skip
    assert not gone, f"{readme} names what is not there"
    missing = sorted(name for name in files if not any(n.split("/")[-1] == name for n in named))
    assert not missing, f"{readme} does not say what these are"
