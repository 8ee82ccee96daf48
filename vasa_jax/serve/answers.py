"""Answers that all of the server's paths share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from vasa_jax.serve.protocol import Refused

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'",
}


def refusal(code: str, message: str) -> web.Response:
    """The answer to a request that is refused with one of ``protocol.ERRORS``."""
    status = {"unauthorised": 403, "busy": 503}.get(code, 400)
    response = web.json_response({"error": code, "message": message}, status=status)
    if code == "unauthorised":
        response.force_close()
    return response


async def into_folder(request: web.Request) -> web.StreamResponse:
    """From ``/talk`` to ``/talk/``: what the page asks for is relative to it."""
    raise web.HTTPFound(request.path.rpartition("/")[2] + "/")


@web.middleware
async def with_headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A middleware: what every answer says to browsers, and refusals as JSON."""
    try:
        response = await handler(request)
    except Refused as error:
        response = refusal(error.code, str(error))
    if not response.prepared:
        response.headers.update(_HEADERS)
    return response
