"""Names that begin with "~", and users that have no home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vasa_jax.io.atomic import existing_file
from vasa_jax.provenance.certificate import identity_folder
from vasa_jax.runtime import compile_cache, places
from vasa_jax.runtime.places import typed

NOBODY = 12345  # no list of users has this one


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder beside an empty home."""
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "here"


def test_a_tilde_is_a_letter_where_it_is_no_home(here: Path) -> None:
    for name in ("~draft.jpg", "~", "~nobody of that name/x.wav"):
        file = here / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
        assert existing_file(name, "image") == Path(name)
    assert typed("~not yet there.mp4") == Path("~not yet there.mp4")


def test_a_tilde_is_the_home_otherwise(here: Path) -> None:
    home = here.parent / "home"
    (home / "me.jpg").write_text("x")
    assert existing_file("~/me.jpg", "image") == home / "me.jpg"
    assert typed("~/new.mp4") == home / "new.mp4"
    assert typed("~") == home
    assert typed("a~/b") == Path("a~/b")
    (here / "~").mkdir()  # what a script has made by mistake
    assert typed("~/me.jpg") == home / "me.jpg"
    assert typed("~/new.mp4") == Path("~/new.mp4")


@pytest.mark.parametrize("home", [None, "", "/", "here"])
def test_a_user_without_a_home_has_folders_where_temporary_files_go(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*unused: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    import pwd

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(places.os, "access", lambda path, mode: str(path) != "/")
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "VASA_CACHE", "VASA_IDENTITY"):
        monkeypatch.delenv(name, raising=False)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / f"vasa-jax-{os.getuid()}"
    assert compile_cache.cache_dir() == mine and identity_folder() == mine / "identity"
    assert mine.stat().st_mode & 0o777 == 0o700
    assert typed("~/x.jpg").name == "x.jpg"
    monkeypatch.setenv("NUMBA_CACHE_DIR", "chosen")
    places.shelter("NUMBA_CACHE_DIR", "numba")
    assert os.environ["NUMBA_CACHE_DIR"] == "chosen"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    places.shelter("NUMBA_CACHE_DIR", "numba")
    assert os.environ["NUMBA_CACHE_DIR"] == str(mine / "numba")
    mine.chmod(0o777)  # programs that others may change must not be run
    assert compile_cache.cache_dir() is None
    mine.rmdir()
    mine.symlink_to(tmp_path)
    assert compile_cache.cache_dir() is None
    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path / "none"))
    assert compile_cache.cache_dir() is None
    with pytest.raises(OSError, match="set VASA_IDENTITY"):
        identity_folder()


def test_libraries_of_users_with_a_home_are_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    places.shelter("NUMBA_CACHE_DIR", "numba")
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_folders_that_are_chosen_win(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.delenv("VASA_CACHE", raising=False)
    monkeypatch.setattr(places.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    assert compile_cache.cache_dir() == here / "vasa-jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute")
    assert compile_cache.cache_dir() == here.parent / "home" / ".cache" / "vasa-jax"
    monkeypatch.setenv("VASA_CACHE", "~/kept")
    assert compile_cache.cache_dir() == here.parent / "home" / "kept"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root may become another")
def test_an_unknown_user_without_a_home_really(tmp_path: Path) -> None:
    # Everything is imported before: this Python may lie in root's home.
    script = """
import os, sys
from vasa_jax.runtime.compile_cache import cache_dir
from vasa_jax.runtime.places import typed
from vasa_jax.io.fetch import cache_folder
from vasa_jax.provenance import certificate
certificate._made()
os.setgroups([]); os.setgid(12345); os.setuid(12345)
print(cache_dir(), cache_folder(), typed("~/x"), certificate.local_identity().algorithm, sep="|")
"""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:  # pytest's own, with one for each of its processes or without
        if not any(part.startswith("pytest-of-") for part in folder.parts):
            break
        folder.chmod(0o755)
    env = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(places.__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, cwd="/"
    )
    mine = str(tmp_path / f"vasa-jax-{NOBODY}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{mine}|{mine}|~/x|es256\n", "")


def test_nobody_else_asks_for_a_home() -> None:
    """``expanduser`` fails on "~draft.jpg", and where there is no home; ``places`` does not."""
    package = Path(places.__file__).parents[1]
    asking = [
        file.name
        for file in package.rglob("*.py")
        if "expanduser(" in (text := file.read_text(encoding="utf-8")) or "Path.home(" in text
    ]
    assert asking == ["places.py"]
