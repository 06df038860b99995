"""A worker process that has imported the engine and waits for a model, so that a load need not wait for the import.

It holds some 25 MB, and the import it saves takes a fifth of the time to the first token of a small model
(`benchmarks/cold_start.py`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from subprocess import DEVNULL

from corral.engine.llama.process import start_process
from corral.engine.llama.worker import SPARE

log = logging.getLogger(__name__)

DELAY = 3.0
"""Seconds from a load until the next spare is made: the first answer is not to share its cores with that."""


class Spare:
    """At most one process that waits. `has_room` says whether memory allows one now."""

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._process: asyncio.subprocess.Process | None = None
        self._making: asyncio.Task[None] | None = None

    def prepare(self, delay: float = 0.0) -> None:
        """Has one made after so many seconds, unless there is one."""
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make(delay))

    async def _make(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if _is_alive(self._process) or not await asyncio.to_thread(self._has_room):
            return
        try:
            self._process = await start_process(DEVNULL, SPARE)
        except OSError as error:
            log.info("no spare worker: %s", error)

    def take(self) -> asyncio.subprocess.Process | None:
        """The process, which is the caller's from now on; None where there is none, or it has died."""
        process, self._process = self._process, None
        return process if _is_alive(process) else None

    async def close(self) -> None:
        """Ends it."""
        if self._making is not None:
            self._making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._making
        process = self.take()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _is_alive(process: asyncio.subprocess.Process | None) -> bool:
    return process is not None and process.returncode is None
