"""The page's files, held in memory.

What anybody may ask for costs neither a thread, of which the sessions need all, nor a file
descriptor, of which there may be none left.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import ETag, web

import vasa_jax

PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png"}


class Shelf:
    """``names``: "" is the page itself, all others are relative to it."""

    def __init__(self) -> None:
        files = {f"page/{file.name}": file for file in PAGE.iterdir() if file.suffix in _KINDS}
        files |= {"": PAGE / "index.html", "example.png": vasa_jax.example_portrait()}
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for name, file in files.items():
            data = file.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:16]
            self._files[name] = data, _KINDS[file.suffix], digest

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def answer(self, name: str, request: web.Request) -> web.Response:
        """The file, or "not modified" for a browser that has it."""
        data, kind, digest = self._files[name]
        headers = {"Cache-Control": "no-cache"}  # ask again: the next version may be another
        if any(tag.value == digest for tag in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            charset = "utf-8" if kind.startswith("text/") else None
            response = web.Response(body=data, content_type=kind, charset=charset, headers=headers)
        response.etag = ETag(digest)
        return response
