"""A request that is sent to another replica where one fails it, as long as its answer has not begun.

Which replica comes next, which errors another one need not have, and how often is tried, say the tries of nodes
(`runners.py`) and of other servers (`elsewhere.py`).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, TypeVar

from corral.errors import CorralError
from corral.messages import Chunk

T = TypeVar("T")

Chunks: TypeAlias = AsyncGenerator[Chunk, None]


class Tries(Protocol):
    """One request on its way from replica to replica."""

    def works(self) -> None:
        """The answer of the replica that has it now has begun."""
        ...

    def failed(self, error: CorralError, *, has_begun: bool) -> bool:
        """That replica failed; returns whether another one may be asked, which counts where no answer had begun."""
        ...


async def resent(answer: Callable[[], AbstractAsyncContextManager[Chunks]], tries: Tries) -> Chunks:
    """The chunks of an answer; where a replica fails before the first of them, those of the next.

    Chunks of progress do not count: they say nothing of the answer.
    """
    while True:
        has_begun = False
        try:
            async with answer() as chunks:
                async for chunk in chunks:
                    if not has_begun and chunk.progress is None:
                        has_begun = True
                        tries.works()
                    yield chunk
                return
        except CorralError as error:
            if not tries.failed(error, has_begun=has_begun) or has_begun:
                raise


async def asked_again(ask: Callable[[], Awaitable[T]], tries: Tries) -> T:
    """What is answered as a whole; where a replica fails, the next one is asked."""
    while True:
        try:
            answer = await ask()
        except CorralError as error:
            if not tries.failed(error, has_begun=False):
                raise
        else:
            tries.works()
            return answer
