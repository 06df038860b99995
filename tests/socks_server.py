"""A small SOCKS5 server (RFC 1928, 1929) whose connections all lead to one port of this machine, whatever is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.relay import relay


class SocksServer:
    """`asked`: the `host:port`s it was asked for. `login`: the name and password it wants. `reply`: 0 connects."""

    def __init__(self, port: int, login: tuple[str, str] | None = None, reply: int = 0) -> None:
        self._port = port
        self._login = login
        self._reply = reply
        self.asked: list[str] = []
        self.address = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await self._greeted(reader, writer):
                await self._connect(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client may hang up at any time
        finally:
            writer.close()

    async def _greeted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        wanted = 0 if self._login is None else 2
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return False
        writer.write(bytes([5, wanted]))
        if self._login is None:
            return True
        name = await reader.readexactly((await reader.readexactly(2))[1])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        is_right = (name.decode(), password.decode()) == self._login
        writer.write(bytes([1, 0 if is_right else 1]))
        return is_right

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, _, kind = await reader.readexactly(4)
        assert kind == 3, "a name, which the proxy looks up"
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        writer.write(bytes([5, self._reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self._reply:
            return
        await relay(reader, writer, self._port)


@asynccontextmanager
async def running_socks(port: int, login: tuple[str, str] | None = None, reply: int = 0) -> AsyncIterator[SocksServer]:
    server = SocksServer(port, login, reply)
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
