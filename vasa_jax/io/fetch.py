"""Files from public addresses: downloaded once, checked by sha256, kept in a cache folder.

Nothing at inference needs this. Training losses and metrics use nets that other projects publish
under permissive licences; they are taken from the publisher and never copied into this repository.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import replacing
from vasa_jax.runtime import unfinished
from vasa_jax.runtime.compile_cache import cache_dir
from vasa_jax.runtime.places import temporary_folder


def cache_folder() -> Path:
    """The user's cache (``core.compile_cache.cache_dir``); a temporary one when that is off.

    Raises UserError when there is neither.
    """
    folder = cache_dir() or temporary_folder()
    if folder is None:
        raise UserError("no folder for what is fetched: neither a home nor room for temporary "
                        "files; set VASA_CACHE to a folder that can be written")  # fmt: skip
    return folder


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def transfer(url: str, path: Path) -> None:
    """What is at ``url``, into the file ``path``. Raises OSError (URLError is one)."""
    request = urllib.request.Request(url, headers={"User-Agent": "vasa-jax"})
    with urllib.request.urlopen(request, timeout=60) as answer, path.open("wb") as out:
        shutil.copyfileobj(answer, out, 1 << 20)


def download(url: str, target: Path, *, sha256: str) -> Path:
    """``url`` as the file ``target``; an existing file with the right digest is kept.

    Raises:
        UserError: no connection, or the content is not what ``sha256`` says.
    """
    if target.exists() and sha256_of(target) == sha256:
        return target
    part = unfinished.name_for(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        transfer(url, part)
        found = sha256_of(part)
        if found != sha256:
            raise UserError(f"{url} has sha256 {found[:12]}..., expected {sha256[:12]}...")
        part.replace(target)
    except OSError as error:
        raise UserError(
            f"cannot download {url} ({error}); connect once, or put the file at {target}"
        ) from error
    finally:
        unfinished.settled(part)
    return target


def fetch_members(url: str, members: Sequence[str], *, sha256: str, name: str) -> list[Path]:
    """Single files out of a remote ``.tar.gz``, unpacked into the cache folder.

    The archive itself is deleted once its members are out: it is usually far larger than they are.

    Args:
        members: paths inside the archive.
        sha256: digest of the archive.
        name: folder under ``cache_folder()``; change it when the content changes.

    Returns:
        One path per member, in order.
    """
    folder = cache_folder() / name
    targets = [folder / Path(m).name for m in members]
    if all(t.exists() for t in targets):
        return targets
    archive = download(url, folder / "archive.tar.gz", sha256=sha256)
    with tarfile.open(archive) as tar:
        for member, target in zip(members, targets, strict=True):
            try:
                source = tar.extractfile(member)
            except KeyError:
                source = None
            if source is None:
                raise UserError(f"{url} holds no file {member}")
            with replacing(target) as part, part.open("wb") as out:
                shutil.copyfileobj(source, out)
    archive.unlink()
    return targets
