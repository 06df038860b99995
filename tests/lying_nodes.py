"""Nodes that vanish, lie or speak nonsense, behind the border that Ray is behind otherwise. They run in a test's loop.

What a node does is in its name: `LIES` has them all, with what is said of each to who asked for the model.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from corral import __version__
from corral.cluster import wire
from corral.cluster.identity import Identity
from corral.cluster.placing import Node, Resources
from corral.cluster.wire import Hello, LoadState, Order, Signs, Started
from corral.errors import EngineLost

ROOM = Resources(4.0, 8 << 30)
SLOW_LOOKS = 10
"""How often a slow node is looked at before it is done: half a second each, longer than one may stand still here."""

SIGN = wire.encode(Signs(1, 1.0, 1)) + b"\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
STARTED = {"type": "Started", "key": "k", "pid": 1, "log": "l", "pool": 4096, "template_error": ""}

UNREAD = "says what cannot be read"
BROKE = "the connection to the worker on node 127.0.0.1 broke"

LIES: dict[str, str] = {
    # when it is greeted
    "another version": r"has Corral 0\.0\.9, and this server is",
    "greets with html": UNREAD,
    "greets without a certificate": UNREAD,
    "greets with a wrong certificate": UNREAD,
    "says no hello": "what was started there has not answered in time",
    # while it loads
    "vanishes when it is to load": "is gone",
    "vanishes amid a file": "is gone",
    "starts with html": UNREAD,
    "starts on no port": UNREAD,
    "starts with less than no memory": UNREAD,
    "fails with html": "node 127.0.0.1: <html>",
    "never loads": "has not said how the load goes for 1 seconds",
    "loads and gets no further": "says that it loads, and nothing has moved for 3 seconds",
    "is slow, and does something": BROKE,  # no lie: it is waited for, and answers nothing when it is asked
    # when its worker is looked at
    "has nothing at its port": "what gave access to the worker has ended",
    "speaks no TLS": "node 127.0.0.1: ",
    "is somebody else": "certificate verify failed",
    "hangs up": "the node ended the connection",
    "says nonsense of the worker": "JSON is malformed",
    "says of the worker what cannot be": "Expected `int` >= 0",
    "never ends a line": "Separator is not found",
    "says nothing of the worker": "it says nothing of the worker that it has started",
    "says that the worker ended": "node 127.0.0.1: signal: killed",
    # when its worker is asked
    "answers nothing": BROKE,
    "answers nonsense": BROKE,
    "answers with html": BROKE,
    "answers with wrong types": "cannot be read",
    "answers with an event without end": "has an event of more than",
    "refuses in html": "cannot be read",
    "ends before a token": BROKE,
    "ends amid a token": BROKE,
}


class LyingNodes:
    """A `Cluster` of one such node."""

    address = "127.0.0.1"

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.placed: list[LyingReplica] = []

    async def nodes(self) -> Sequence[Node]:
        return [Node(id="liar", address="node-liar", total=ROOM, free=ROOM)]

    async def place(self, needs: Resources, without: Collection[str]) -> "LyingReplica":
        self.placed.append(LyingReplica(self.lie))
        return self.placed[-1]

    async def close(self) -> None:
        for one in self.placed:
            await one.stop(0)


class LyingReplica:
    """A `Placed` that lies."""

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.identity = Identity("node")
        self.server: asyncio.Server | None = None
        self.asked = 0
        self.is_over = asyncio.Event()

    async def hello(self) -> Hello:
        said = wire.encode(Hello(__version__, "127.0.0.1", self.identity.certificate))
        match self.lie:
            case "another version":
                said = said.replace(__version__.encode(), b"0.0.9")
            case "says no hello":
                await asyncio.get_running_loop().create_future()
            case "greets with html":
                said = b"<html>"
            case "greets without a certificate":
                said = wire.encode({"version": __version__, "address": "127.0.0.1"})
            case "greets with a wrong certificate":
                said = wire.encode(Hello(__version__, "127.0.0.1", "-----BEGIN NOTHING-----"))
        return wire.said(wire.decode_hello, said, "liar")

    async def node_id(self) -> str:
        return "liar"

    async def load(self, order: Order) -> Started:
        match self.lie:
            case "vanishes when it is to load":
                raise EngineLost("node liar is gone")
            case "vanishes amid a file":
                await self._half_a_file(order)
                raise EngineLost("node liar is gone")
            case "never loads" | "loads and gets no further":
                await asyncio.get_running_loop().create_future()
            case "is slow, and does something":
                await self.is_over.wait()
            case "fails with html":
                raise wire.raised(wire.Failed("KeyboardInterrupt", "<html>"), "127.0.0.1")
        port = await self._listen(order)
        said: Any = {**STARTED, "port": port, "has_llguidance": False}
        match self.lie:
            case "starts with html":
                said = "<html>"
            case "starts on no port":
                said["port"] = 1 << 20
            case "starts with less than no memory":
                said["pool"] = -1
        reply = wire.said(wire.decode_reply, wire.encode(said), "127.0.0.1")
        assert isinstance(reply, Started)
        return reply

    async def _half_a_file(self, order: Order) -> None:
        (file,) = order.files.values()
        address = urlsplit(order.file_route)
        reader, writer = await asyncio.open_connection(
            address.hostname, address.port, ssl=self.identity.asking(order.certificate)
        )
        writer.write(f"GET /{file.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readexactly(file.size // 2)
        writer.transport.abort()

    async def _listen(self, order: Order) -> int:
        if self.lie == "has nothing at its port":
            return 1
        identity = Identity("somebody else") if self.lie == "is somebody else" else self.identity
        tls: ssl.SSLContext | None = identity.serving([order.certificate])
        assert tls is not None
        tls.set_alpn_protocols([wire.WATCH, wire.REQUESTS])
        if self.lie == "speaks no TLS":
            tls = None
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        return int(self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("ssl_object")
        is_watch = connection is not None and connection.selected_alpn_protocol() == wire.WATCH
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if is_watch:
                await self._watch(writer)
            else:
                await self._answer(reader, writer)
        writer.transport.abort()

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        said = {
            "hangs up": b"",
            "says nonsense of the worker": b"\xff\xfe nonsense\n",
            "says of the worker what cannot be": b'{"type":"Signs","memory":-1,"seconds":"many","printed":[]}\n',
            "never ends a line": b"x" * (1 << 20),
            "says that the worker ended": wire.encode(wire.Ended("signal: killed")) + b"\n",
        }
        if self.lie == "says nothing of the worker":
            await asyncio.get_running_loop().create_future()
        writer.write(said.get(self.lie, SIGN))
        await writer.drain()
        if self.lie not in said:
            await asyncio.get_running_loop().create_future()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said = {
            "answers nonsense": b"220 mail.example.com ESMTP\r\n" * 3,
            "answers with html": ANSWER.replace(b"event-stream", b"html") + b"<html><body>Welcome</body></html>\n\n",
            "answers with wrong types": ANSWER + b'data: {"content": {}, "stop": 5}\n\n',
            "answers with an event without end": ANSWER + b'data: {"content": "' + b"x" * (17 << 20),
            "refuses in html": b"HTTP/1.1 500 Sorry\r\nContent-Length: 6\r\n\r\n<html>",
            "ends before a token": ANSWER,
            "ends amid a token": ANSWER + b'data: {"content": "w1 ", "tokens": [1], "stop": false}\n\ndata: {"con',
        }
        writer.write(said.get(self.lie, b""))
        await writer.drain()
        if "event without end" in self.lie:
            await reader.read()  # until who asked has gone

    async def state(self) -> LoadState:
        if self.lie == "never loads":
            await asyncio.get_running_loop().create_future()
        self.asked += 1
        if self.lie == "is slow, and does something":
            if self.asked > SLOW_LOOKS:
                self.is_over.set()
            return LoadState(1, 2, 0, 3, self.asked / 10, 6)
        return LoadState(1, 2, 0, 3, 4.5, 6)

    async def stop(self, grace: float) -> None:
        if self.server is not None:
            self.server.close()
