"""The routes that show what the server's routes are: `/openapi.json` for programs, `/docs` for people."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from corral.golang import gojson
from corral.server.http.docs_key import DOCUMENTS
from corral.server.http.docs_page import page
from corral.server.http.needs import READ
from corral.server.http.openapi import document
from corral.server.http.operation import ANYTHING, Operation
from corral.server.http.plain import PLAIN
from corral.server.http.routing import DocumentedRoute, route
from corral.server.http.streaming import PLAIN_JSON

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What the page may load: nothing."""


def with_documents(routes: Sequence[DocumentedRoute]) -> tuple[DocumentedRoute, ...]:
    """The routes, with two more that describe them all. The descriptions are made at the first request for them."""

    async def openapi(request: Request) -> Response:
        """This server's routes as an OpenAPI document"""
        data = await asyncio.to_thread(as_json)
        return Response(data, headers={"content-type": PLAIN_JSON})

    async def docs(request: Request) -> Response:
        """This server's routes as a page to read"""
        text = await asyncio.to_thread(as_page)
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}
        return Response(text, headers=headers)

    own = (
        route(
            "/openapi.json", openapi, "GET", "HEAD", dialect=PLAIN, operation=Operation(answers=ANYTHING), needs=READ
        ),
        route("/docs", docs, "GET", "HEAD", dialect=DOCUMENTS, operation=Operation(text="text/html"), needs=READ),
    )
    every = (*routes, *own)
    as_json = _once(lambda: gojson.encode(document(every)))
    as_page = _once(lambda: page(document(every)).encode())
    return every


def _once(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """What `make` makes, once, whichever threads ask for it."""
    lock = threading.Lock()
    made = cache(make)

    def found() -> bytes:
        with lock:
            return made()

    return found
