"""What the client of a llama-server has to know of the worker that it is in, wherever that runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from corral.engine.llama.exchange import Exchange
from corral.errors import EngineError


class Worker(Protocol):
    """A worker that serves: how it is reached, and what is known of its process."""

    @property
    def url(self) -> str:
        """Where it listens: `http://` or `https://`, an address and a port."""
        ...

    @property
    def key(self) -> str:
        """What requests have to show."""
        ...

    @property
    def pid(self) -> int:
        """Of its process, on the machine where it runs."""
        ...

    @property
    def log_path(self) -> Path:
        """Where its log lies, on the machine where it runs."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def connect_seconds(self) -> float | None:
        """How long a session may take to connect and to agree on keys; None: as long as the system tries."""
        ...

    async def reach(self) -> None:
        """Before a session connects: sees whether there is anything to connect to. Errors as `exchange`."""
        ...

    def connector(self) -> aiohttp.BaseConnector:
        """How a session of requests connects to it: a connection for each."""
        ...

    async def exchange(self) -> Exchange:
        """A new connection for one request. `OSError`, or `EngineError` when it cannot be reached at all."""
        ...

    async def broken(self, error: BaseException | None) -> EngineError:
        """Why a connection broke; `error` None: the answer just ended, without its last event."""
        ...

    async def ended(self) -> str:
        """Waits for its end; returns how it ended."""
        ...

    def last_error(self) -> str:
        """What it printed last of an error. Blocks."""
        ...

    def device_error(self) -> str:
        """What it said of a device that failed; empty where none did. Blocks."""
        ...

    def signs_of_life(self) -> tuple[float, int]:
        """What grows while it computes or prints."""
        ...

    async def give_up(self, reason: str) -> None:
        """Kills one that hangs; `reason` is how it ended then."""
        ...

    async def rendering(
        self, prompt: asyncio.Future[Any], healthy: Callable[[], Awaitable[bool]], others: Callable[[], bool]
    ) -> None:
        """Waits for a prompt; `RunawayTemplateError` when its chat template runs beyond its time or memory. `healthy`
        asks whether it answers pings, `others` whether other requests have run meanwhile."""
        ...

    def memory(self) -> int:
        """Bytes of main memory that it holds; 0 when it is gone."""
        ...

    async def stop(self, grace: float) -> None:
        """Ends it, after `grace` seconds by force."""
        ...
