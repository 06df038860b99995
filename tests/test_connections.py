"""Connections: idle ones are left open, unless there are too many; what a client that takes its time may cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from corral.server.http import protocol
from corral.server.http.protocol import MAX_HEAD, MAX_HEADERS, Protocol
from corral.server.serve import uvicorn_config

YEAR = 365 * 86400


@dataclass
class Held:
    """An application that answers at once, but `/slow` when it is let go, and `/endless` until it is cancelled."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.begun.set()
            await self.go.wait()
        if scope["path"] == "/endless":
            await self._answer_without_end(receive, send)
            return
        if scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _answer_without_end(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            self.begun.set()
        self.ended.set()


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, path: str = "/") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def answer(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n\r\nok"))[:12]

    async def is_closed(self) -> bool:
        """Waits for the end."""
        return await self.reader.read() == b""


class Served:
    def __init__(self, server: uvicorn.Server, stack: AsyncExitStack) -> None:
        self.server = server
        self._stack = stack

    async def connect(self) -> Connection:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        self._stack.callback(connection.writer.close)
        return connection

    @property
    def connections(self) -> list[Protocol]:
        return [cast(Protocol, one) for one in self.server.server_state.connections]


@asynccontextmanager
async def serving(app: Held, connections: int) -> AsyncIterator[Served]:
    config = uvicorn_config(app, connections)
    config.host, config.port = "127.0.0.1", 0
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    async with AsyncExitStack() as stack:
        await server.startup()
        stack.push_async_callback(server.shutdown)
        yield Served(server, stack)


async def test_an_idle_connection_is_not_closed_by_the_server() -> None:
    async with serving(Held(), 10) as served:
        connection = await served.connect()
        connection.ask()
        assert await connection.answer() == b"HTTP/1.1 200"
        (idle,) = served.connections
        assert idle.timeout_keep_alive_task is not None
        assert idle.timeout_keep_alive_task.when() - asyncio.get_running_loop().time() > YEAR


async def test_of_too_many_connections_the_one_idle_for_longest_is_closed() -> None:
    async with serving(Held(), 3) as served:
        first, second, third = [await served.connect() for _ in range(3)]
        for connection in (second, first, third):
            connection.ask()
            assert await connection.answer() == b"HTTP/1.1 200"
        fourth = await served.connect()
        assert await second.is_closed()
        for connection in (first, third, fourth):
            connection.ask()
            assert await connection.answer() == b"HTTP/1.1 200"


async def test_a_connection_that_never_asked_anything_is_idle_too() -> None:
    async with serving(Held(), 2) as served:
        silent, other = await served.connect(), await served.connect()
        other.ask()
        assert await other.answer() == b"HTTP/1.1 200"
        silent.writer.write(b"GET / HT")
        other.ask()
        assert await other.answer() == b"HTTP/1.1 200"
        half = [await served.connect() for _ in range(2)]
        assert await silent.is_closed()
        assert await other.is_closed()
        half[0].ask()
        assert await half[0].answer() == b"HTTP/1.1 200"


async def test_a_request_under_way_is_never_closed_for_another() -> None:
    app = Held()
    async with serving(app, 1) as served:
        busy = await served.connect()
        busy.ask("/slow")
        await app.begun.wait()
        idle = await served.connect()
        idle.ask()
        assert await idle.answer() == b"HTTP/1.1 200"
        newest = await served.connect()
        assert await idle.is_closed()
        newest.ask()
        assert await newest.answer() == b"HTTP/1.1 200"
        app.go.set()
        assert await busy.answer() == b"HTTP/1.1 200"


async def test_where_no_connection_is_idle_a_new_one_is_refused() -> None:
    app = Held()
    async with serving(app, 1) as served:
        busy = []
        for _ in range(2):
            busy.append(await served.connect())
            busy[-1].ask("/slow")
            await app.begun.wait()
            app.begun.clear()
        assert (await (await served.connect()).reader.read())[:12] == b"HTTP/1.1 503"
        app.go.set()
        for connection in busy:
            assert await connection.answer() == b"HTTP/1.1 200"


async def test_a_head_that_does_not_end_in_time_is_refused_and_a_silent_connection_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    async with serving(Held(), 10) as served:
        silent, slow = await served.connect(), await served.connect()
        slow.writer.write(b"GET / HTTP/1.1\r\nHost: loc")
        assert (await slow.reader.read())[:12] == b"HTTP/1.1 408"
        for _ in range(2):
            silent.ask()
            assert await silent.answer() == b"HTTP/1.1 200"


async def test_a_client_that_does_not_read_its_answer_loses_it_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.05)
    app = Held()
    async with serving(app, 10) as served:
        asking = await served.connect()
        cast(asyncio.Transport, asking.writer.transport).pause_reading()
        asking.ask("/endless")
        async with asyncio.timeout(60):
            await app.ended.wait()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X: y\r\n" * (MAX_HEADERS - 1), b"200"),
        (b"X: y\r\n" * MAX_HEADERS, b"431"),
        (b"X: %s\r\n" % (b"y" * (MAX_HEAD - 1000)), b"200"),
        (b"X: %s\r\n" % (b"y" * MAX_HEAD), b"431"),
        (b"X: %s\r\n" % (b"y" * (MAX_HEAD // 2)) * 2, b"431"),
    ],
    ids=["many", "too many", "large", "too large", "large together"],
)
async def test_headers_are_bounded_in_number_and_size(head: bytes, status: bytes) -> None:
    async with serving(Held(), 10) as served:
        asking = await served.connect()
        asking.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % head)
        assert (await asking.reader.read(12))[9:] == status


@pytest.mark.parametrize(
    "around",
    [
        b"1;%s\r\nx\r\n" % (b"e" * 10 * MAX_HEAD),
        b"0\r\n%s\r\n" % (b"Trailer: of no use\r\n" * MAX_HEAD),
        b"0\r\nTrailer: %s\r\n\r\n" % (b"y" * 10 * MAX_HEAD),
    ],
    ids=["extension", "trailers", "trailer"],
)
async def test_what_stands_around_the_chunks_of_a_body_is_bounded(around: bytes) -> None:
    async with serving(Held(), 10) as served:
        asking = await served.connect()
        asking.writer.write(b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        asking.writer.write(around)
        assert (await asking.reader.read(12))[:12] == b"HTTP/1.1 431"


async def test_a_body_of_tiny_chunks_is_read() -> None:
    async with serving(Held(), 10) as served:
        asking = await served.connect()
        asking.writer.write(b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        asking.writer.write(b"1\r\nx\r\n" * MAX_HEAD + b"0\r\nTrailer: y\r\n\r\n")
        assert await asking.answer() == b"HTTP/1.1 200"
