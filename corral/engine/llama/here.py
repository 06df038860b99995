"""A worker on this machine, as the client of its llama-server sees it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from corral.engine.llama.exchange import Exchange
from corral.engine.llama.process import WorkerProcess
from corral.errors import EngineDied, EngineError

_GONE = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check corral server logs for details"
)


class WorkerHere:
    """A `Worker` that is a child process and listens on loopback."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    @property
    def url(self) -> str:
        return self._process.url

    @property
    def key(self) -> str:
        return self._process.key

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self._process.log.path

    @property
    def alive(self) -> bool:
        return self._process.alive

    @property
    def connect_seconds(self) -> float | None:
        return None

    async def reach(self) -> None:
        """Nothing: the system tells at once."""

    def connector(self) -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(limit=0, force_close=True)  # llama-server drops kept connections unasked

    async def exchange(self) -> Exchange:
        host, _, port = urlsplit(self._process.url).netloc.rpartition(":")
        _, exchange = await asyncio.get_running_loop().create_connection(Exchange, host, int(port))
        return exchange

    async def broken(self, error: BaseException | None) -> EngineError:
        """As a rule the worker is gone, but its exit may become known a moment later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                reason = await self._process.ended()
                last = self._process.log.last_error()
                return EngineDied(f"{_GONE} ({reason}{f': {last}' if last else ''})")
        text = str(error or "unexpected EOF")
        return EngineError(f"an error was encountered while running the model: {text}")

    async def ended(self) -> str:
        return await self._process.ended()

    def last_error(self) -> str:
        return self._process.log.last_error()

    def device_error(self) -> str:
        return self._process.log.device_error()

    def signs_of_life(self) -> tuple[float, int]:
        return self._process.signs_of_life()

    async def give_up(self, reason: str) -> None:
        await self._process.give_up(reason)

    async def rendering(
        self, prompt: asyncio.Future[Any], healthy: Callable[[], Awaitable[bool]], others: Callable[[], bool]
    ) -> None:
        await self._process.rendering(prompt, healthy, others)

    def memory(self) -> int:
        return self._process.memory()

    async def stop(self, grace: float) -> None:
        await self._process.stop(grace)
