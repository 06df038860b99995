"""Server-sent events: an answer as a stream of them, which begins in time. Knows no dialect.

Clients give up when a response does not begin within a minute or so. So a stream whose first chunk takes long, because
a model is loaded or a long prompt is read, begins without it and says now and then that it is alive.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Protocol

import msgspec
from starlette.requests import Request

from corral.errors import CorralError
from corral.golang import gojson
from corral.messages import Chunk
from corral.server.http.answers import Numbered, describe
from corral.server.http.dialect import dialect_of, set_dialect
from corral.server.http.streaming import Stream

EVENT_STREAM = "text/event-stream"

SILENCE = 10.0
"""Seconds after which a stream begins, or says that it is alive."""


class EventWriter(Protocol):
    """What a dialect sends for the steps of an answer: bytes, empty where it sends nothing. Knows where it is."""

    def opening(self) -> bytes:
        """Before the first chunk."""
        ...

    def waiting(self) -> bytes:
        """While there is nothing to say; after `opening`."""
        ...

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        """For a chunk of the answer with this number."""
        ...

    def failure(self, error: CorralError) -> bytes:
        """The end of a stream that has begun and cannot go on."""
        ...


def event(data: Any, name: str = "") -> bytes:
    """One event with a value as JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + gojson.encode(data) + b"\n\n"


async def event_response(
    request: Request, source: Numbered, writer: EventWriter, *, on_end: Callable[[], Awaitable[None]] | None = None
) -> Stream[bytes]:
    """The answer as events. An error within `SILENCE` seconds and before the first chunk has its own status.

    `on_end` is awaited when the writer has got the last chunk, before the event for it is sent.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(aclosing(source))
        first = asyncio.ensure_future(anext(source))
        stack.push_async_callback(_cancelled, first)
        await asyncio.wait({first}, timeout=SILENCE)
        chunk = first.result()[1] if first.done() else Chunk()
        set_dialect(request.scope, msgspec.structs.replace(dialect_of(request.scope), line=writer.failure))
        response = Stream(
            writer.opening(), _events(first, source, writer, on_end), bytes, EVENT_STREAM, stack.pop_all()
        )
        describe(response, chunk.truncated_tokens, chunk.unenforced)
        return response
    raise AssertionError("an exit stack does not swallow errors")


async def _events(
    first: "asyncio.Future[tuple[int, Chunk]]",
    source: Numbered,
    writer: EventWriter,
    on_end: Callable[[], Awaitable[None]] | None,
) -> AsyncGenerator[bytes, None]:
    while not first.done():
        await asyncio.wait({first}, timeout=SILENCE)
        if not first.done():
            yield writer.waiting()
    number, chunk = first.result()
    while True:
        data = writer.chunk(number, chunk)
        if on_end is not None and chunk.done_reason:
            await on_end()
        if data:
            yield data
        try:
            number, chunk = await anext(source)
        except StopAsyncIteration:
            return


async def _cancelled(task: "asyncio.Future[tuple[int, Chunk]]") -> None:
    """Ends a task and waits for that."""
    task.cancel()
    await asyncio.wait({task})
