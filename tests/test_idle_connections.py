"""Idle connections: the server leaves them open, unless there are too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import uvicorn
from starlette.types import Receive, Scope, Send

from corral.server.http.protocol import Protocol
from corral.server.serve import uvicorn_config

YEAR = 365 * 86400


@dataclass
class Held:
    """An application that answers at once, but `/slow` when it is let go."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.begun.set()
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


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
        (protocol,) = served.connections
        assert protocol.timeout_keep_alive_task is not None
        assert protocol.timeout_keep_alive_task.when() - asyncio.get_running_loop().time() > YEAR


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
