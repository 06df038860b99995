"""Progress as an answer of Ollama's routes. Source: spec api §1.5."""

import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import CorralError
from corral.golang import gojson
from corral.messages import Progress
from corral.server.http.dialect import dialect_of, note
from corral.server.http.discretion import said_to
from corral.server.http.streaming import NDJSON, PLAIN_JSON, Stream
from corral.server.ollama import wire as wire

PLAIN_TEXT = "text/plain; charset=utf-8"


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
        response = dialect_of(request.scope).answer(said_to(request.scope, error))
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
