"""Downloads, from file addresses only."""

from __future__ import annotations

import hashlib
import tarfile

import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.io import fetch


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "inside.txt"
    source.write_text("weights")
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(source, "package/inside.txt")
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest(), path


def test_members_are_unpacked_once_and_the_archive_goes(archive, tmp_path):
    url, digest, path = archive
    (got,) = fetch.fetch_members(url, ["package/inside.txt"], sha256=digest, name="n")
    assert got.read_text() == "weights"
    assert [p.name for p in got.parent.iterdir()] == ["inside.txt"]
    path.unlink()  # a second call needs no connection
    assert fetch.fetch_members(url, ["package/inside.txt"], sha256=digest, name="n") == [got]


def test_wrong_content_is_refused_and_leaves_nothing(archive, tmp_path):
    url, _, _ = archive
    target = tmp_path / "folder" / "x"
    with pytest.raises(UserError, match="sha256"):
        fetch.download(url, target, sha256="0" * 64)
    assert list(target.parent.iterdir()) == []


def test_no_connection_says_what_to_do(tmp_path):
    missing = (tmp_path / "none").as_uri()
    with pytest.raises(UserError, match="put the file at"):
        fetch.download(missing, tmp_path / "y", sha256="0" * 64)


def test_a_missing_member_is_named(archive):
    url, digest, _ = archive
    with pytest.raises(UserError, match="no file package/other"):
        fetch.fetch_members(url, ["package/other"], sha256=digest, name="m")
