"""The repository stands alone: no machine's paths, a licence, a map, commands that can be run."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Joined here, so that this file does not find itself.
FOLDERS = "|".join(("work", "tmp", "root", "home", "Users", "mnt", "opt"))
ABSOLUTE = re.compile(rf"(?<![\w./:~$}}*-])/(?:{FOLDERS})(?:/[\w.]|\b(?![\w/-]))")


def tracked_files() -> list[Path]:
    """Files of the repository: those git knows, else (an archive) everything visible."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout.decode()
        files = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [p for p in ROOT.rglob("*") if not any(x.startswith(".venv") for x in p.parts)]
    return [path for path in files if path.is_file()]


def test_no_file_names_a_path_of_some_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if ABSOLUTE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_path_check_sees_paths_and_spares_others() -> None:
    slash = "/"
    for bad in (f"'{slash}work/main'", f"cd {slash}tmp", f"={slash}home/me/x"):
        assert ABSOLUTE.search(bad), bad
    for good in ("https://host/home/x", "and/or/work", "out/tmp/x", "$HOME/work", "~/work/x"):
        assert not ABSOLUTE.search(good), good


def test_scripts_are_executable_and_parse() -> None:
    for name in (".ci/run", "tools/test", "tools/demo", "tools/make_venv"):
        assert os.access(ROOT / name, os.X_OK), name
        subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_licences_travel_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for owner in ("Google", "USC Institute for Creative Technologies", "GRID", "CC BY 4.0"):
        assert owner in notice


def test_the_map_names_every_package() -> None:
    text = (ROOT / "vasa_jax" / "README.md").read_text()
    packages = [path.parent.name for path in (ROOT / "vasa_jax").glob("*/__init__.py")]
    assert not [name for name in packages if f"`{name}/`" not in text]
