"""Releases: a folder of plain files that holds all that inference needs.

    model.safetensors   every array under its path name: "face/...", "motion/...", "head/..."
    config.json         resolved configs of the stages
    stats.json          statistics of normalisation
    card.md             data, licences, training command, measured quality, intended use
    sha256              one line per file, "<hex>  <name>", as ``sha256sum`` writes and checks it

The hash of a release is the SHA-256 of its ``sha256`` file, whose lines are sorted; it therefore
covers every byte of the others. Arrays stored as float16 come back as float32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tarfile
import tempfile
import urllib.parse
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import flatten, unflatten
from vasa_jax.io.fetch import cache_folder, sha256_of, transfer
from vasa_jax.runtime import unfinished
from vasa_jax.runtime.places import typed

PyTree = Any

MODEL, CONFIG, STATS, CARD, SHA256 = (
    "model.safetensors", "config.json", "stats.json", "card.md", "sha256",
)  # fmt: skip
FILES = (MODEL, CONFIG, STATS, CARD)
FORMAT = "vasa_jax release 1"
BUILT_IN = Path(__file__).parent.parent / "releases"
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class Release:
    """A verified release. Arrays are numpy, floating ones float32."""

    name: str
    path: Path
    params: dict[str, Any]  # {"face": tree, "motion": tree, "head": tree}, perhaps "student"
    config: dict[str, Any]
    stats: dict[str, Any]
    sha256: str

    @property
    def card(self) -> str:
        return (self.path / CARD).read_text(encoding="utf-8")


def save_release(
    folder: str | Path,
    params: Mapping[str, PyTree],
    config: Mapping[str, Any],
    stats: Mapping[str, Any],
    card: str,
    *,
    float16: Iterable[str] = (),
    overwrite: bool = False,
) -> str:
    """Write a release and return its hash.

    ``params`` maps a part ("face", "motion", "head") to nested dicts of arrays; parts named in
    ``float16`` are stored in half precision (arrays that would overflow stay float32). Floating
    arrays are stored as float32 otherwise, integers and booleans as they are. The folder appears
    at once or not at all. UserError when it exists and ``overwrite`` is not given.
    """
    folder = Path(folder)
    half = set(float16)
    unknown = half - set(params)
    if unknown:
        raise UserError(f"float16: no part {sorted(unknown)}; there is {', '.join(params)}")
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists already; choose another folder or ask to overwrite")
    table: dict[str, np.ndarray] = {}
    for part, tree in params.items():
        for name, leaf in flatten(_as_dicts(tree, part)).items():
            table[f"{part}/{name}"] = _stored(f"{part}/{name}", leaf, half=part in half)

    from safetensors.numpy import save_file

    draft = unfinished.name_for(folder)
    try:
        draft.mkdir(parents=True)
        save_file(dict(sorted(table.items())), draft / MODEL, metadata={"format": FORMAT})
        for name, value in ((CONFIG, config), (STATS, stats)):
            text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
            (draft / name).write_text(text + "\n", encoding="utf-8")
        (draft / CARD).write_text(card, encoding="utf-8")
        lines = "".join(f"{sha256_of(draft / name)}  {name}\n" for name in sorted(FILES))
        (draft / SHA256).write_text(lines, encoding="utf-8")
        for file in draft.iterdir():
            file.chmod(0o644)
        draft.chmod(0o755)
        _replace_folder(draft, folder)
    except OSError as error:
        raise UserError(f"cannot write release {folder}: {error.strerror or error}") from error
    finally:
        unfinished.settled(draft)
    return hashlib.sha256(lines.encode()).hexdigest()


def load_release(source: str | Path) -> Release:
    """Load and verify a release: a built-in name, a folder, or a URL.

    URLs are https:// or file:// addresses of a .zip or .tar archive and end in ``#sha256=HEX``,
    the checksum of the archive; they are fetched once into the user's cache. UserError when the
    release is unknown, incomplete or does not fit its checksums.
    """
    folder = find_release(source)
    digest = verify(folder)

    from safetensors.numpy import load_file

    table = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in load_file(folder / MODEL).items()
    }
    return Release(
        name=folder.name,
        path=folder,
        params=unflatten(table),
        config=json.loads((folder / CONFIG).read_text(encoding="utf-8")),
        stats=json.loads((folder / STATS).read_text(encoding="utf-8")),
        sha256=digest,
    )


def built_in() -> list[str]:
    """Names of the releases that came with the package."""
    return sorted(p.parent.name for p in BUILT_IN.glob(f"*/{SHA256}"))


def find_release(source: str | Path) -> Path:
    """The folder of a release, fetched if it is a URL. Does not verify its files."""
    text = str(source)
    if "://" in text:
        return _fetch(text)
    if text in built_in():
        return BUILT_IN / text
    folder = typed(text)
    if folder.is_dir():
        return folder
    known = ", ".join(built_in()) or "none"
    raise UserError(f"no release {text!r}: built in are {known}; or give a folder or a URL")


def verify(folder: str | Path) -> str:
    """Check every file of a release against its checksum; returns the hash of the release."""
    folder = Path(folder)
    try:
        text = (folder / SHA256).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{folder} is not a release: it has no readable {SHA256} file") from None
    listed: dict[str, str] = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if Path(name).name != name or not _is_hex(digest):
            raise UserError(f"release {folder}: {SHA256} has a line that is not '<hex>  <name>'")
        listed[name] = digest
    for name in FILES:
        if name not in listed:
            raise UserError(f"release {folder}: {SHA256} does not list {name}; fetch it again")
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise UserError(f"release {folder}: {name} is missing; fetch the release again")
        if sha256_of(folder / name) != digest:
            raise UserError(
                f"release {folder}: checksum of {name} does not match; fetch the release again"
            )
    return hashlib.sha256(text.encode()).hexdigest()


def _as_dicts(tree: PyTree, where: str) -> dict[str, Any]:
    """Nested dicts with text names that survive the path names; NamedTuples become dicts."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where}: nested dicts of arrays expected, got {type(tree).__name__}")
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{where}: {name!r} cannot be a name in a release")
        nested = isinstance(value, Mapping | tuple | list)  # lists are refused there
        out[name] = _as_dicts(value, f"{where}/{name}") if nested else value
    return out


def _stored(name: str, leaf: Any, *, half: bool) -> np.ndarray:
    """The array as it goes to the file."""
    if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | bool):
        raise ValueError(f"{name}: an array expected, got {type(leaf).__name__}")
    array = np.asarray(leaf)
    if array.dtype.kind in "iub":
        return np.ascontiguousarray(array)
    # bfloat16 has kind "V"; it and float64 are both held by float32 as far as a net needs.
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: dtype {array.dtype} has no place in a release")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    if half and (array.size == 0 or np.abs(array).max() < _FLOAT16_MAX):
        array = array.astype(np.float16)
    return np.ascontiguousarray(array).reshape(array.shape)  # keeps () arrays of shape ()


def _replace_folder(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; an old one is moved away first, then removed."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old / folder.name)
    try:
        new.rename(folder)
    except OSError:
        (old / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _fetch(url: str) -> Path:
    """The release inside the archive at ``url``, from the cache when it is there."""
    address, _, fragment = url.partition("#")
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme not in ("https", "file"):
        raise UserError(f"releases come by https:// or file://, not {scheme}://")
    wanted = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or not _is_hex(wanted):
        raise UserError(f"add the archive's checksum to the address: {address}#sha256=HEX")
    folder = cache_folder() / "releases" / wanted
    if not folder.is_dir():
        part = unfinished.name_for(folder)
        try:
            part.mkdir(parents=True)
            archive = part / "archive"
            _download(address, archive)
            if sha256_of(archive) != wanted:
                raise UserError(f"checksum of {address} does not match; was the address copied?")
            _unpack(archive, part / "content")
            try:
                (part / "content").rename(folder)
            except OSError:
                if not folder.is_dir():  # else somebody else fetched it meanwhile
                    raise
        finally:
            unfinished.settled(part)
    inside = sorted(p.parent for p in (*folder.glob(SHA256), *folder.glob(f"*/{SHA256}")))
    if not inside:
        raise UserError(f"the archive at {address} holds no release (no {SHA256} file)")
    return inside[0]


def _download(address: str, path: Path) -> None:
    try:
        transfer(address, path)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot fetch {address}: {reason}") from error


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as pack:
                pack.extractall(folder)  # drops absolute paths and ".." by itself
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(f"not a .zip or .tar archive of a release: {error}") from error


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
