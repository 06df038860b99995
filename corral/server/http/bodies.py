"""JSON bodies, read into typed values and written. What is large is read in a thread, so that it holds nothing up."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import EmptyBody
from corral.golang import gojson
from corral.server.http.images import ImageFetcher, LinkedImage
from corral.server.http.reading import hold_more, release_body
from corral.server.http.requests import runtime_of
from corral.server.http.streaming import JSON, PLAIN_JSON
from corral.server.http.weight import weight

T = TypeVar("T", bound=Struct)
Converted = TypeVar("Converted")


def reply(value: Any) -> Response:
    """A value as JSON; what is large is encoded in a thread and goes through `encoded_reply`."""
    return encoded_reply(gojson.encode(value))


def plain_reply(value: Any) -> Response:
    """As `reply`, for the dialects whose servers send JSON without a charset."""
    return Response(gojson.encode(value), headers={"content-type": PLAIN_JSON})


def encoded_reply(data: bytes) -> Response:
    """A reply whose JSON was made elsewhere: a large one is encoded in a thread."""
    return Response(data, headers={"content-type": JSON})


LARGE = 1 << 18
"""Bytes of JSON whose reading, with base64 of pictures, would hold up the event loop: it is done in a thread."""

LIGHT = 64 << 10
"""Bytes that the values of a request may take without being counted."""


async def body_as(request: Request, kind: type[T]) -> T:
    """The body read into a wire type; `EmptyBody` for an empty or blank one (spec api §1.1)."""
    asked, _ = await body_converted(request, kind, lambda asked: None)
    return asked


async def body_converted(
    request: Request,
    kind: type[T],
    convert: Callable[[T], Converted],
    links: Callable[[T], Iterable[LinkedImage]] | None = None,
) -> tuple[T, Converted]:
    """The body read into a wire type, and what `convert` makes of that; both in a thread where the body is large.

    What the values take beside their text counts as a part of the body, before they are made: errors as of `hold_more`.
    `links` finds the pictures that are named by their address. They are fetched between the two, if that is configured.
    """
    data = await request.body()
    if not data.strip():
        raise EmptyBody
    if (more := weight(data)) > LIGHT:
        await hold_more(request, more)
    is_large = len(data) > LARGE

    def work() -> tuple[T, Converted]:
        asked = gojson.decode(data, kind)
        return asked, convert(asked)

    if links is None or not runtime_of(request).config.fetch_images:
        values = await asyncio.to_thread(work) if is_large else work()
    else:
        asked = await asyncio.to_thread(gojson.decode, data, kind) if is_large else gojson.decode(data, kind)
        fetcher: ImageFetcher = request.app.state.images
        found = list(links(asked))
        await fetcher.fetch_all(found, partial(hold_more, request))
        values = asked, await asyncio.to_thread(convert, asked) if is_large or found else convert(asked)
    release_body(request)
    return values
