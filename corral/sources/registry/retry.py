"""Trying again, with growing pauses. Knows which errors may pass, not what is tried."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from corral.errors import SourceError, Unreachable
from corral.sources.registry.http import Interrupted, StatusError, is_passing
from corral.sources.registry.limits import Limits

T = TypeVar("T")


async def patiently(
    action: Callable[[], Awaitable[T]], limits: Limits, may_help: Callable[[SourceError], bool] = is_passing
) -> T:
    """What `action` gives, tried again while `may_help` says so of its error. When all is tried: as `pause`."""
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
    """Waits before the next attempt, also as long as the server asked for.

    When there is none left, `Unreachable` if nobody was there to the last, otherwise `Interrupted`.
    """
    if attempt >= limits.attempts:
        kind = Unreachable if isinstance(error, Unreachable) else Interrupted
        raise kind(f"max retries exceeded: {error}") from error
    asked = error.pause if isinstance(error, StatusError) else 0.0
    await asyncio.sleep(max(limits.pause * 2**attempt, asked))
