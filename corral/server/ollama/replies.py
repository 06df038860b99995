"""What Ollama's routes have in common: reading a body, JSON and progress as answers.

Source: spec api §1.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import BadRequest, CorralError
from corral.golang import gojson
from corral.messages import Progress
from corral.server.http.dialect import dialect_of, note
from corral.server.http.reading import release_body
from corral.server.http.streaming import JSON, NDJSON, Stream
from corral.server.ollama import wire as wire

PLAIN_JSON = "application/json"
PLAIN_TEXT = "text/plain; charset=utf-8"

T = TypeVar("T", bound=Struct)
Converted = TypeVar("Converted")


def reply(value: Any) -> Response:
    """A value as JSON; what is large is encoded in a thread and goes through `encoded_reply`."""
    return encoded_reply(gojson.encode(value))


def encoded_reply(data: bytes) -> Response:
    """A reply whose JSON was made elsewhere: a large one is encoded in a thread."""
    return Response(data, headers={"content-type": JSON})


LARGE = 1 << 18
"""Bytes of JSON whose reading, with base64 of pictures, would hold up the event loop: it is done in a thread."""


async def body_as(request: Request, kind: type[T]) -> T:
    """The body read into a wire type; `BadRequest` for an empty or blank one (spec api §1.1)."""
    asked, _ = await body_converted(request, kind, lambda asked: None)
    return asked


async def body_converted(request: Request, kind: type[T], convert: Callable[[T], Converted]) -> tuple[T, Converted]:
    """The body read into a wire type, and what `convert` makes of that; both in a thread where the body is large."""
    data = await request.body()
    if not data.strip():
        raise BadRequest("missing request body")

    def work() -> tuple[T, Converted]:
        asked = gojson.decode(data, kind)
        return asked, convert(asked)

    values = await asyncio.to_thread(work) if len(data) > LARGE else work()
    release_body(request)
    return values


async def progress_answer(request: Request, steps: AsyncGenerator[Progress, None], stream: bool) -> Response:
    """Progress as lines, or the last of it (spec api §1.5). The first step decides the status."""
    lines = _progress_lines(steps)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(aclosing(lines))
            first = last = await anext(lines)
            if stream:
                stack.pop_all()
                return Stream(_after(first, lines), NDJSON)
            async for line in lines:
                last = line
    except CorralError as error:
        note(request.scope, error)
        response = dialect_of(request.scope).answer(error)
        response.headers["content-type"] = PLAIN_JSON
        return response
    return Response(last.rstrip(b"\n"), headers={"content-type": PLAIN_JSON})


async def _progress_lines(steps: AsyncGenerator[Progress, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        async for step in steps:
            yield gojson.encode(wire.progress_line(step)) + b"\n"


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for line in rest:
            yield line
