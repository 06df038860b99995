"""Trying again, with growing pauses. Knows which errors may pass, not what is tried."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from corral.errors import SourceError
from corral.sources.http import Interrupted, StatusError, is_passing
from corral.sources.transfer import Limits

T = TypeVar("T")


async def patiently(
    action: Callable[[], Awaitable[T]], limits: Limits, may_help: Callable[[SourceError], bool] = is_passing
) -> T:
    """What `action` gives, tried again while `may_help` says so of its error. `Interrupted` when all is tried."""
    attempt = 0
    while True:
        try:
            return await action()
        except SourceError as error:
            if not may_help(error):
                raise
            await pause(attempt, error, limits)
        attempt += 1


async def pause(attempt: int, error: SourceError, limits: Limits) -> None:
    """Waits before the next attempt, also as long as the server asked for; `Interrupted` when there is none left."""
    if attempt >= limits.attempts:
        raise Interrupted(f"max retries exceeded: {error}") from error
    asked = error.pause if isinstance(error, StatusError) else 0.0
    await asyncio.sleep(max(limits.pause * 2**attempt, asked))
