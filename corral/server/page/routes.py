"""`/` for browsers, and the files under `/page/`. Programs that ask for `/` get Ollama's text."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from corral.server.http.dialect import set_routine
from corral.server.page.files import File, files, version

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load and run: its own files, and pictures that its user gave it."""

_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "vary": "Accept, Accept-Encoding",
    "x-content-type-options": "nosniff",
}


class _ForBrowsers(Route):
    """A route for requests that would rather have HTML; others fall to the next route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        accepted = next((value for name, value in scope.get("headers", ()) if name == b"accept"), b"")
        return super().matches(scope) if b"text/html" in accepted else (Match.NONE, {})


async def _page(request: Request) -> Response:
    return _sent(request, (await asyncio.to_thread(files))["index.html"], "no-cache")


async def _file(request: Request) -> Response:
    found = await asyncio.to_thread(files)
    file = found.get(request.path_params["path"])
    if file is None:
        return Response("404 page not found", 404, {"content-type": "text/plain"})
    is_current = request.path_params["version"] == version()
    return _sent(request, file, "max-age=31536000, immutable" if is_current else "no-cache")


def _sent(request: Request, file: File, caching: str) -> Response:
    set_routine(request.scope)
    headers = {**_HEADERS, "cache-control": caching, "content-type": file.type, "etag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.compressed, headers={**headers, "content-encoding": "gzip"})
    return Response(file.data, headers=headers)


ROUTES = (
    _ForBrowsers("/", _page, methods=["GET"]),
    Route("/page/{version}/{path:path}", _file, methods=["GET"]),
)
