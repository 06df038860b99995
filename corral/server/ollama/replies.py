"""What Ollama's routes have in common: reading a body, the error envelope, JSON and progress as answers.

Source: spec api §1.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import BadRequest, CorralError
from corral.golang import gojson
from corral.messages import Progress
from corral.server.http.streaming import JSON, NDJSON, Stream, note
from corral.server.ollama import wire as wire

PLAIN_JSON = "application/json"
PLAIN_TEXT = "text/plain; charset=utf-8"

T = TypeVar("T", bound=Struct)


def error_body(error: CorralError) -> bytes:
    """The native envelope (spec api §1.4)."""
    return gojson.encode({"error": str(error)})


def error_line(error: CorralError) -> bytes:
    return error_body(error) + b"\n"


def reply(value: Any) -> Response:
    return encoded_reply(gojson.encode(value))


def encoded_reply(data: bytes) -> Response:
    """A reply whose JSON was made elsewhere: a large one is encoded in a thread."""
    return Response(data, headers={"content-type": JSON})


LARGE = 1 << 18
"""Bytes of JSON whose reading is felt by other requests, so that it is done beside the loop."""


async def body_as(request: Request, kind: type[T]) -> T:
    """The body read into a wire type; an empty or blank one is refused (spec api §1.1)."""
    data = await request.body()
    if not data.strip():
        raise BadRequest("missing request body")
    return await asyncio.to_thread(gojson.decode, data, kind) if len(data) > LARGE else gojson.decode(data, kind)


async def progress_answer(request: Request, steps: AsyncGenerator[Progress, None], stream: bool) -> Response:
    """Progress as lines, or the last of it (spec api §1.5). The first step decides the status."""
    lines = _progress_lines(steps)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(aclosing(lines))
            first = last = await anext(lines)
            if stream:
                stack.pop_all()
                return Stream(_after(first, lines), error_line, NDJSON)
            async for line in lines:
                last = line
    except CorralError as error:
        note(request.scope, error)
        return Response(error_body(error), error.status, {"content-type": PLAIN_JSON})
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
