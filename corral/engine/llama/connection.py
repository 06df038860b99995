"""The connection to one llama-server: requests and their answers, whether it still works, and why it has gone.

Knows no route but the one for pings. How an answer comes over the wire is the subject of `exchange.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from corral.engine.llama import wire
from corral.engine.llama.border import Worker
from corral.engine.llama.exchange import Exchange, NotHttp
from corral.engine.llama.process import GRACE, WorkerProcess, discard
from corral.errors import EngineError

HEALTH_TIMEOUT = 10.0
"""Seconds an engine has to answer a health ping (spec cli §11)."""

HEALTH_INTERVAL = 0.02
"""Seconds between pings of a llama-server that does not report by itself when it has loaded."""

HANG_TIMEOUT, HANG_PINGS = 60.0, 6
"""Seconds in which a worker with requests has computed nothing and answered no ping, after which it is ended; and the
pings in that time. A loaded machine gives every process some processor time in a minute."""

RESENDS = 2
"""How often a request is sent again whose connection a living worker has dropped unanswered. llama-server does that
when a request does not come within five seconds of its connection, as where a machine has too much to do."""


class Connection:
    """To a worker that is there. `hang_timeout`: seconds in which one that hangs is ended."""

    def __init__(self, worker: Worker, hang_timeout: float) -> None:
        self.running = 0
        """Requests that compute now."""
        self.started = 0
        """Those that have begun to."""
        self._worker = worker
        self._hang_timeout = hang_timeout
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None
        self._session = aiohttp.ClientSession(
            base_url=worker.url,
            headers={"Authorization": f"Bearer {worker.key}"},
            connector=worker.connector(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=worker.connect_seconds),
        )
        self._exchanges: set[Exchange] = set()
        """Those under way. They are not the session's: each token of an answer costs a general client too much."""

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer. `EngineDied`, or `EngineError` with what the engine says."""
        data = None if body is None else await wire.encoded(path, body)
        try:
            with self._watched():
                async with await self._begun(method, path, data) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise await self.dead(error) from error
        if response.status >= 400:
            raise wire.refusal(wire.decoded(wire.decode_failed, answer).error)
        if len(answer) > wire.LARGE:
            return await asyncio.to_thread(wire.decoded, msgspec.json.decode, answer)
        return wire.decoded(msgspec.json.decode, answer)

    @contextlib.asynccontextmanager
    async def streamed(self, path: str, body: Any) -> AsyncGenerator[Exchange, None]:
        """An answer as it comes; leaving the block closes the connection, which frees the slot. Errors as those of
        `ask`."""
        try:
            with self.counted(), self._watched():
                async with self._exchanged(path, await wire.encoded(path, body)) as exchange:
                    if exchange.status >= 400:
                        raise wire.refusal(wire.decoded(wire.decode_failed, await exchange.whole()).error)
                    yield exchange
        except OSError as error:
            raise await self.dead(error) from error

    @contextlib.asynccontextmanager
    async def _exchanged(self, path: str, data: bytes) -> AsyncGenerator[Exchange, None]:
        """An answer whose head has come; its connection is closed at the end of the block."""
        exchange = await self._answered(path, data)
        try:
            yield exchange
        finally:
            self._drop(exchange)

    async def _answered(self, path: str, data: bytes) -> Exchange:
        for _ in range(RESENDS):
            try:
                return await self._sent(path, data)
            except NotHttp:
                raise
            except OSError:
                if not self._worker.alive:
                    raise
        return await self._sent(path, data)

    async def _sent(self, path: str, data: bytes) -> Exchange:
        if self._session.closed:
            raise ConnectionError("the engine was closed")
        exchange = await self._worker.exchange()
        self._exchanges.add(exchange)
        try:
            exchange.send(self._head(path, len(data)) + data)
            await exchange.answered()
        except BaseException:
            self._drop(exchange)
            raise
        return exchange

    def _drop(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        exchange.close()

    def _head(self, path: str, size: int) -> bytes:
        """Of a request with so many bytes of JSON."""
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {urlsplit(self._worker.url).netloc}",
            f"Authorization: Bearer {self._worker.key}",
            "Content-Type: application/json",
            f"Content-Length: {size}",
            "Connection: close",  # llama-server drops kept connections unasked
        )
        return "\r\n".join((*lines, "", "")).encode()

    async def _begun(self, method: str, path: str, data: bytes | None) -> aiohttp.ClientResponse:
        """The head of an answer; its body is still to be read, and it has to be closed."""
        await self._worker.reach()
        for _ in range(RESENDS):
            try:
                return await self._session.request(method, path, data=data)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not self._worker.alive:
                    raise
        return await self._session.request(method, path, data=data)

    async def dead(self, error: BaseException | None) -> EngineError:
        """Why a connection broke; `error` None: the answer just ended, without its last event."""
        return await self._worker.broken(error)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a request that computes, and so may fill the prompt cache."""
        self.running += 1
        self.started += 1
        try:
            yield
        finally:
            self.running -= 1

    async def healthy(self) -> bool:
        if not self._worker.alive:
            return False
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT), self._session.get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def wait_until_served(self, process: WorkerProcess, stall_timeout: float) -> None:
        """Waits for a llama-server that reports its port before it has loaded. Errors as `WorkerProcess.ready`."""
        served = asyncio.ensure_future(self._served(process))
        try:
            await process.progressing(served, stall_timeout)
            served.result()
        except BaseException:
            await self.close()
            await process.stop(grace=GRACE)
            raise
        finally:
            await discard(served)

    async def _served(self, process: WorkerProcess) -> None:
        while not await self.healthy():
            if not process.alive:
                raise process.failure()
            await asyncio.sleep(HEALTH_INTERVAL)

    async def close(self) -> None:
        """Breaks off what is under way."""
        await self._session.close()
        for exchange in self._exchanges:
            exchange.close()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Has the worker watched while a request waits for it."""
        self._waiting += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_when_hanging())
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._watch.cancel()
                self._watch = None

    async def _end_when_hanging(self) -> None:
        """Ends the worker when it neither computes nor answers pings; its requests fail with the reason.

        Pings are counted, not seconds: while the whole machine sleeps, no ping goes out.
        """
        interval, missed = self._hang_timeout / HANG_PINGS, 0
        await asyncio.sleep(interval)
        while missed < HANG_PINGS:
            before = self._worker.signs_of_life()
            if await self._answers(interval):
                missed = 0
                await asyncio.sleep(interval)
            else:
                missed = missed + 1 if self._worker.signs_of_life() == before else 0
        await self._worker.give_up(f"it did not answer for {self._hang_timeout:.0f} seconds")

    async def _answers(self, seconds: float) -> bool:
        """Whether a ping is answered or refused in time: a worker's end is noticed elsewhere."""
        try:
            async with asyncio.timeout(seconds), self._session.get("/health"):
                return True
        except TimeoutError:
            return False
        except (aiohttp.ClientError, RuntimeError):
            return True
