"""Answers as server-sent events: when a stream begins, what it says while it waits, how it ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from corral.errors import BadRequest, CorralError, EngineDied
from corral.messages import Chunk
from corral.server.http import events
from corral.server.http.dialect import Dialect, set_dialect


class Writer:
    """Writes what it is asked for, in words."""

    def opening(self) -> bytes:
        return b"opening "

    def waiting(self) -> bytes:
        return b"waiting "

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        return f"{number}:{chunk.content or chunk.done_reason} ".encode()

    def failure(self, error: CorralError) -> bytes:
        return f"failure: {error}".encode()


class Source:
    """Chunks that come when they are let go, or an error."""

    def __init__(self, *chunks: Chunk | CorralError) -> None:
        self.go = asyncio.Event()
        self.closed = False
        self._chunks = chunks

    async def __call__(self) -> AsyncGenerator[tuple[int, Chunk], None]:
        try:
            await self.go.wait()
            for chunk in self._chunks:
                if isinstance(chunk, CorralError):
                    raise chunk
                yield 0, chunk
        finally:
            self.closed = True


class Client:
    """Takes a response; `part` waits for what comes next."""

    def __init__(self) -> None:
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
        set_dialect(self.scope, Dialect(lambda error: Response(), lambda error: b"of the route"))
        self.request = Request(self.scope)

    async def send(self, message: Any) -> None:
        if body := message.get("body"):
            self._parts.put_nowait(body)

    async def part(self) -> bytes:
        return await asyncio.wait_for(self._parts.get(), 30)


END = Chunk(done_reason="stop")


async def test_a_stream_that_waits_begins_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE", 0.01)
    source, client = Source(Chunk("a"), END), Client()
    response = await events.event_response(client.request, source(), Writer())
    sending = asyncio.create_task(response(client.scope, client.request.receive, client.send))
    assert [await client.part(), await client.part(), await client.part()] == [b"opening ", b"waiting ", b"waiting "]
    source.go.set()
    await sending
    rest = []
    while not client._parts.empty():
        rest.append(await client.part())
    assert [part for part in rest if part != b"waiting "] == [b"0:a ", b"0:stop "]
    assert source.closed


async def test_an_error_before_anything_was_sent_has_its_own_status() -> None:
    source = Source(BadRequest("no"))
    source.go.set()
    with pytest.raises(BadRequest):
        await events.event_response(Client().request, source(), Writer())
    assert source.closed


async def test_an_error_in_a_stream_is_written_by_its_writer() -> None:
    source, client = Source(Chunk("a"), EngineDied("gone")), Client()
    source.go.set()
    response = await events.event_response(client.request, source(), Writer())
    await response(client.scope, client.request.receive, client.send)
    assert [await client.part() for _ in range(3)] == [b"opening ", b"0:a ", b"failure: gone"]
    assert source.closed


async def test_what_is_to_be_done_at_the_end_is_done_before_the_end_is_sent() -> None:
    source, client = Source(Chunk("a"), END), Client()
    source.go.set()
    order: list[str] = []

    async def on_end() -> None:
        order.append("kept")

    class Ordered(Client):
        async def send(self, message: Any) -> None:
            order.append(message.get("body", b"").decode())

    client = Ordered()
    response = await events.event_response(client.request, source(), Writer(), on_end=on_end)
    await response(client.scope, client.request.receive, client.send)
    assert order[-3:] == ["kept", "0:stop ", ""]


async def test_a_client_that_leaves_while_it_waits_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE", 0.01)
    source, client = Source(END), Client()
    response = await events.event_response(client.request, source(), Writer())
    sending = asyncio.create_task(response(client.scope, client.request.receive, client.send))
    assert await client.part() == b"opening "
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert source.closed


async def test_events_have_a_name_and_json() -> None:
    assert events.event({"a": "你"}, "b") == 'event: b\ndata: {"a":"你"}\n\n'.encode()
    assert events.event([1]) == b"data: [1]\n\n"


async def test_closing_early_is_enough() -> None:
    source = Source(END)
    async with aclosing(source()) as chunks:
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        await events._cancelled(waiting)
    assert source.closed
