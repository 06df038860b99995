"""Trying an action again after an error that may pass, with growing pauses. Knows nothing of the action."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from corral.errors import SourceError, Unreachable
from corral.sources.registry.errors import Interrupted, StatusError, is_retryable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an action is tried again after it failed without progress, and the pauses in between."""

    attempts: int = 6
    pause: float = 1.0
    """Seconds before the first further attempt; doubled before each of the next."""


async def retry(
    action: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    retryable: Callable[[SourceError], bool] = is_retryable,
    has_progressed: Callable[[], bool] = lambda: False,
) -> T:
    """What `action` returns, after as many attempts as it takes.

    An error that is not `retryable` is raised as it is. `has_progressed` is asked once after each failure: when it is
    true, the attempts are counted anew. When none is left, `Unreachable` if the last error was one, else `Interrupted`.
    """
    attempt = 0
    while True:
        try:
            return await action()
        except SourceError as error:
            if not retryable(error):
                raise
            if has_progressed():
                attempt = 0
            await _pause(attempt, error, policy)
        attempt += 1


async def _pause(attempt: int, error: SourceError, policy: RetryPolicy) -> None:
    """Waits before the next attempt, at least as long as the server asked for."""
    if attempt >= policy.attempts:
        kind = Unreachable if isinstance(error, Unreachable) else Interrupted
        raise kind(f"max retries exceeded: {error}") from error
    asked = error.pause if isinstance(error, StatusError) else 0.0
    await asyncio.sleep(max(policy.pause * 2**attempt, asked))
