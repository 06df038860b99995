"""A worker on another node, as the client of its llama-server sees it: reached over TLS, watched by a connection.

Whether it can be reached is judged by our own connections: by how they are made and how they break. The system asks the
other end of quiet ones every second whether it is there, which a node answers however busy its programs are.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp
import msgspec
from msgspec import Struct

from corral.cluster import wire
from corral.cluster.identity import Identity
from corral.cluster.wire import Ended, Hello, Signs, Started
from corral.engine import connecting
from corral.engine.llama.exchange import Exchange
from corral.engine.llama.process import rendered
from corral.errors import EngineError, EngineLost

P = TypeVar("P", bound=asyncio.Protocol)

LOSS_SECONDS = 2
"""How long after the last sign of a node its connections break."""

LOST_SECONDS = 5.0
"""How long a node may be out of reach before its worker is given up."""

AGAIN_SECONDS = 0.25
"""Pause between two tries to reach it."""

CACHE_BYTES = 2 << 30
"""What the worker's prompt cache may take, at most."""


class Health(Struct, frozen=True):
    """Who is told how a worker is: that it answers, that a connection failed and why, that it is gone for good."""

    answers: Callable[[], None] = lambda: None
    failed: Callable[[str], None] = lambda error: None
    gone: Callable[[], None] = lambda: None


class RemoteWorker:
    """A `Worker` on a node. `stop` ends it there, given the seconds that it may take."""

    def __init__(
        self,
        node: Hello,
        started: Started,
        identity: Identity,
        stop: Callable[[float], Awaitable[None]],
        health: Health,
    ) -> None:
        self.node = node.address
        self._started = started
        self._tls = identity.asking(node.certificate)
        self._watch_tls = identity.asking(node.certificate)
        self._watch_tls.set_alpn_protocols([wire.WATCH])
        self._stop = stop
        self._health = health
        self._signs = Signs(0, 0.0, 0)
        self._last = Ended("")
        self._problem = ""
        """Why the node could not be heard last."""
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = loop.create_future()
        self._first_sign: asyncio.Future[None] = loop.create_future()
        self._watch = loop.create_task(self._watching())

    @property
    def url(self) -> str:
        host = f"[{self.node}]" if ":" in self.node else self.node
        return f"https://{host}:{self._started.port}"

    @property
    def key(self) -> str:
        return self._started.key

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def log_path(self) -> Path:
        return Path(self._started.log)

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    @property
    def connect_seconds(self) -> float | None:
        return connecting.HANDSHAKE_SECONDS

    async def ready(self, seconds: float) -> None:
        """Waits for the first word of the node about it; `EngineLost` when none comes in so many seconds."""
        waited: set[asyncio.Future[Any]] = {self._first_sign, self._ended}
        done, _ = await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            problem = self._problem or "it says nothing of the worker that it has started"
            raise EngineLost(f"node {self.node}: {problem}")
        if self._ended.done():
            raise EngineLost(f"node {self.node}: {self._ended.result()}")

    async def reach(self) -> None:
        """Connects, and no more: a node that cannot be reached is told from one that is slow to agree on keys."""
        try:
            (await connecting.connected(self.node, self._started.port, LOSS_SECONDS)).close()
        except OSError as error:
            raise await self.broken(error) from error

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(
            limit=0,
            force_close=True,
            ssl=self._tls,
            socket_factory=lambda address: connecting.connection_socket(address[0], LOSS_SECONDS),
        )

    async def exchange(self) -> Exchange:
        try:
            return await self._opened(Exchange, self._tls)
        except OSError as error:  # a timeout, too
            raise await self.broken(error) from error

    async def _opened(self, protocol: Callable[[], P], tls: ssl.SSLContext) -> P:
        return await connecting.opened(
            protocol, self.node, self._started.port, loss_seconds=LOSS_SECONDS, encryption=tls
        )

    async def broken(self, error: BaseException | None) -> EngineError:
        text = str(error or "") or ("it timed out" if error else "unexpected EOF")
        if self._ended.done():
            text = self._ended.result()
        else:
            self._health.failed(f"node {self.node}: {text}")
        return EngineLost(f"the connection to the worker on node {self.node} broke: {text}")

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    def last_error(self) -> str:
        return self._last.last_error

    def device_error(self) -> str:
        return self._last.device_error

    def signs_of_life(self) -> tuple[float, int]:
        return self._signs.seconds, self._signs.printed

    async def give_up(self, reason: str) -> None:
        self._end(reason)
        await self._stop(0)

    async def rendering(
        self, prompt: asyncio.Future[Any], healthy: Callable[[], Awaitable[bool]], others: Callable[[], bool]
    ) -> None:
        await rendered(prompt, healthy, others, self.memory, CACHE_BYTES)

    def memory(self) -> int:
        return self._signs.memory if self.alive else 0

    async def stop(self, grace: float) -> None:
        grace = grace if self.alive else 0  # else there is nothing to be waited for
        self._end("stopped")
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._stop(grace)

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)
            self._health.gone()

    async def _watching(self) -> None:
        """Hears of the worker for as long as it is there, on one connection after the other where one breaks."""
        clock = asyncio.get_running_loop().time
        heard = clock()
        while self.alive:
            try:
                async with contextlib.aclosing(self._remarks()) as remarks:
                    async for remark in remarks:
                        heard = clock()
                        self._take(remark)
                self._problem = "the node ended the connection"
            except ConnectionRefusedError:  # the node is there, and what had the port is not
                self._end("what gave access to the worker has ended")
            except (OSError, ValueError, msgspec.DecodeError) as error:
                self._problem = str(error) or "it timed out"
            if self._ended.done():
                return
            self._health.failed(f"node {self.node}: {self._problem}")
            if clock() - heard > LOST_SECONDS:
                self._end(f"the node cannot be reached: {self._problem}")
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _remarks(self) -> AsyncGenerator[Signs | Ended, None]:
        lines = await self._opened(_Lines, self._watch_tls)
        try:
            while line := await lines.reader.readline():
                yield wire.decode_remark(line)
        finally:
            lines.close()

    def _take(self, remark: Signs | Ended) -> None:
        if isinstance(remark, Ended):
            self._last = remark
            self._end(remark.reason)
            return
        self._signs = remark
        self._health.answers()
        if not self._first_sign.done():
            self._first_sign.set_result(None)


class _Lines(asyncio.StreamReaderProtocol):
    """Reads a connection line by line."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connection = cast(asyncio.Transport, transport)

    def close(self) -> None:
        self._connection.abort()
