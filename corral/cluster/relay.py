"""TLS in front of a worker on loopback: connections from the server that the node works for, and no others.

The protocol that is agreed on with the connection says where it leads: to the worker, byte by byte, or to what the node
says of the worker, a line of JSON at a time.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from corral.cluster import wire
from corral.cluster.identity import Identity
from corral.cluster.wire import Ended, Signs

HANDSHAKE_SECONDS = 5.0
PIECE = 1 << 16


class Relay:
    """Serves one worker. `signs` tells how it is."""

    def __init__(self, identity: Identity, server: str, port: int, signs: Callable[[], Signs]) -> None:
        """`server` is the certificate of who may connect, `port` the worker's."""
        self._tls = identity.serving([server])
        self._tls.set_alpn_protocols([wire.WATCH, wire.REQUESTS])
        self._worker_port = port
        self._signs = signs
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, address: str) -> int:
        """Begins to listen on a free port of the node's address; returns the port."""
        self._server = await asyncio.start_server(
            self._serve, address, 0, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
        return int(self._server.sockets[0].getsockname()[1])

    def ended(self, how: Ended) -> None:
        """The worker is gone: those who watch are told."""
        if not self._ended.done():
            self._ended.set_result(how)

    async def close(self) -> None:
        """Breaks off all connections; those who watch hear first how the worker ended."""
        self._server.close()
        await asyncio.sleep(0)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            connection = writer.get_extra_info("ssl_object")
            assert isinstance(connection, ssl.SSLObject)
            if connection.selected_alpn_protocol() == wire.WATCH:
                await self._tell(writer)
            else:
                await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort() if not self._ended.done() else writer.close()

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        while not self._ended.done():
            writer.write(wire.encode(self._signs()) + b"\n")
            await writer.drain()
            await asyncio.wait({self._ended}, timeout=wire.SIGNS_SECONDS)
        writer.write(wire.encode(self._ended.result()) + b"\n")
        await writer.drain()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways until either side ends; then the other is closed, which frees the worker's slot."""
        worker_reader, worker_writer = await asyncio.open_connection("127.0.0.1", self._worker_port)
        asked = asyncio.ensure_future(_pumped(reader, worker_writer))
        answered = asyncio.ensure_future(_pumped(worker_reader, writer))
        try:
            await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
            if answered.done() and answered.exception() is None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        finally:
            for pump in (asked, answered):
                pump.cancel()
            await asyncio.gather(asked, answered, return_exceptions=True)
            worker_writer.transport.abort()


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
