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
from corral.server.ollama import lines

PLAIN_TEXT = "text/plain; charset=utf-8"


async def progress_answer(request: Request, steps: AsyncGenerator[Progress, None], stream: bool) -> Response:
    """Progress as lines, or the last of it (spec api §1.5). The first step decides the status."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(aclosing(steps))
            last = await anext(steps)
            if stream:
                stack.pop_all()
                return Stream(_line(last), steps, _line, NDJSON)
            async for step in steps:
                last = step
    except CorralError as error:
        note(request.scope, error)
        response = dialect_of(request.scope).answer(said_to(request.scope, error))
        response.headers["content-type"] = PLAIN_JSON
        return response
    return Response(gojson.encode(lines.progress_line(last)), headers={"content-type": PLAIN_JSON})


def _line(step: Progress) -> bytes:
    return gojson.encode(lines.progress_line(step)) + b"\n"
