"""Uploaded pictures are decoded in a process of their own, with bounds on memory and time.

    python -m vasa_jax.serve.decoding < upload > picture

A decoder's bug, or a file made to exhaust it, then ends that process and not the server. The child
sets its own limits before it loads a decoder, refuses by the header's dimensions before a pixel is
decoded, and answers with one JSON line, followed by the pixels where there are any.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.serve import protocol
from vasa_jax.serve.protocol import Refused

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF")
MEMORY_BYTES = 2 << 30  # address space, of which libraries alone map some hundred MB
CPU_S, WALL_S = 20, 30  # a HEIC of 48 megapixels took 6 s
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
_CONTAINER = b"ftyp"  # of HEIC and AVIF, at byte 4


async def decode_portrait(data: bytes, *, max_side: int) -> np.ndarray:
    """The picture uint8 (Y, X, 3), no side longer than ``max_side``.

    Raises UserError, or Refused where the machine can't start a process.
    """
    if not (data.startswith(_SIGNATURES) or data[4:8] == _CONTAINER):
        raise UserError("give a JPEG, PNG, WebP, HEIC or AVIF picture")
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, "1")
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vasa_jax.serve.decoding", str(max_side),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    except OSError as error:  # no process, memory or file descriptor is left
        raise Refused(
            "busy", "the server has no room for a picture now; try again later"
        ) from error
    try:
        async with asyncio.timeout(WALL_S):
            out, _ = await child.communicate(data)
    except TimeoutError:
        raise UserError("the picture takes too long to read; save it smaller") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    line, _, pixels = out.partition(b"\n")
    try:
        answer = json.loads(line)
    except ValueError:
        raise UserError("the picture could not be read in the memory and time allowed") from None
    if "error" in answer:
        raise UserError(answer["error"])
    return np.frombuffer(pixels, np.uint8).reshape(answer["shape"])


def main() -> int:
    """The child: picture on stdin, one line of JSON and the pixels on stdout."""
    _limit()
    data = sys.stdin.buffer.read(protocol.MAX_PORTRAIT_BYTES + 1)
    try:
        image = _decode(data, int(sys.argv[1]))
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 2
    sys.stdout.buffer.write(json.dumps({"shape": image.shape}).encode() + b"\n" + image.tobytes())
    return 0


def _decode(data: bytes, max_side: int) -> np.ndarray:
    from vasa_jax.io.image import read_image

    if len(data) > protocol.MAX_PORTRAIT_BYTES:
        raise UserError("the picture is too large a file")
    limit = protocol.MAX_PORTRAIT_PIXELS
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return read_image(file.name, max_side=max_side, max_pixels=limit, formats=FORMATS)
        except UserError as error:
            raise UserError(str(error).replace(file.name, "the picture")) from None


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the parent's clock is the only limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    raise SystemExit(main())
