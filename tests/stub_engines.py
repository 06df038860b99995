"""Engines that are only objects, for the scheduler's tests: loads that end and engines that die as a test wants.

Behind the same protocol as the real one; what a scheduler never calls is not there.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from corral.engine.base import Engine, LoadProgress, RunnerSpec


async def turn_the_loop() -> None:
    """Lets everything run that can run without waiting for anything from outside."""
    for _ in range(25):
        await asyncio.sleep(0)


class StubEngine:
    """An engine that answers pings while `answers` is true, and ends when it is closed or dies."""

    def __init__(self, spec: RunnerSpec) -> None:
        self.spec = spec
        self.answers = True
        self.pings = 0
        self.closed = 0
        self.kept = 0
        self.holds_keep: asyncio.Event | None = None
        self.holds_ping: asyncio.Event | None = None
        self.holds_close: asyncio.Event | None = None
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._retiring: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def die(self, reason: str = "signal: killed") -> None:
        if not self._end.done():
            self._end.set_result(reason)

    def retire(self, reason: str = "the model's chat template takes too long or too much memory") -> None:
        if not self._retiring.done():
            self._retiring.set_result(reason)

    async def healthy(self) -> bool:
        self.pings += 1
        if self.holds_ping is not None:
            await self.holds_ping.wait()
        return self.answers

    async def ended(self) -> str:
        return await asyncio.shield(self._end)

    async def retiring(self) -> str:
        return await asyncio.shield(self._retiring)

    def memory(self) -> int:
        return 1

    async def keep(self) -> None:
        self.kept += 1
        if self.holds_keep is not None:
            await self.holds_keep.wait()

    async def close(self) -> None:
        self.closed += 1
        if self.holds_close is not None:
            await self.holds_close.wait()
        self.die("stopped")


class Load:
    """One load under way."""

    def __init__(self, spec: RunnerSpec, progress: LoadProgress) -> None:
        self.spec = spec
        self.progress = progress
        self.engine: StubEngine | None = None
        self.cancelled = False
        self.outcome: asyncio.Future[StubEngine] = asyncio.get_running_loop().create_future()

    def finish(self) -> StubEngine:
        self.engine = StubEngine(self.spec)
        self.outcome.set_result(self.engine)
        return self.engine

    def fail(self, error: Exception) -> None:
        self.outcome.set_exception(error)


class Launcher:
    """Starts loads and keeps them all; `by_itself`: they finish at once."""

    def __init__(self, *, by_itself: bool = True) -> None:
        self.by_itself = by_itself
        self.answers = True
        self.loads: list[Load] = []
        self.holds_cancel: asyncio.Event | None = None
        self.before: Callable[[RunnerSpec], None] = lambda spec: None

    async def __call__(self, spec: RunnerSpec, label: str, progress: LoadProgress) -> Engine:
        load = Load(spec, progress)
        self.loads.append(load)
        self.before(spec)
        if self.by_itself:
            load.finish().answers = self.answers
        try:
            return cast("Engine", await load.outcome)  # a scheduler asks no more of one
        except asyncio.CancelledError:
            if self.holds_cancel is not None:
                await self.holds_cancel.wait()
            load.cancelled = True
            raise

    @property
    def engines(self) -> list[StubEngine]:
        return [load.engine for load in self.loads if load.engine is not None]
