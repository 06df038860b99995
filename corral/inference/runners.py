"""Which loaded model a request gets: this machine's, or, where it has nodes, one of a fleet on them."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from corral.engine.base import RunnerSpec
from corral.errors import EngineLost
from corral.messages import ChatRequest, Chunk, GenerateRequest
from corral.replicas.prefixes import prompt_bytes
from corral.replicas.replica import Prompt, prompt_of
from corral.serving.place import Place
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler

if TYPE_CHECKING:
    from corral.cluster.fleets import Fleets

T = TypeVar("T")

TRIES = 3
"""Replicas that a request is sent to at most, one after the other, while its answer has not begun."""


class Runners:
    """This machine's models and those on its nodes; `fleets` None: it has no nodes."""

    def __init__(self, here: Scheduler, fleets: "Fleets | None" = None) -> None:
        self._here = here
        self.fleets = fleets

    @property
    def runners(self) -> Sequence[Runner]:
        return (*self._here.runners, *(self.fleets.runners if self.fleets else ()))

    @property
    def queued(self) -> int:
        return self._here.queued + (self.fleets.queued if self.fleets else 0)

    def runner(
        self,
        spec: RunnerSpec,
        label: str,
        keep_alive: float | None = None,
        place: Place | None = None,
        request: ChatRequest | GenerateRequest | None = None,
        routed: Callable[[str, str], None] = lambda replica, reason: None,
    ) -> AbstractAsyncContextManager[Runner]:
        """A loaded model for a request, used until the block is left; `routed` gets the replica that was chosen, and
        why, where there are nodes. Errors as `Scheduler.runner`, and `NotPlaced`."""
        if self.fleets is None:
            return self._here.runner(spec, label, keep_alive, place)
        return self.fleets.runner(spec, label, keep_alive, place, _prompt(request), routed)

    def expire(self, weights: str) -> None:
        """Unloads the models with these weights as soon as they have no users."""
        self._here.expire(weights)
        if self.fleets is not None:
            self.fleets.expire(weights)


def _prompt(request: ChatRequest | GenerateRequest | None) -> Prompt:
    return Prompt() if request is None else prompt_of(prompt_bytes(request))


Chunks: TypeAlias = AsyncGenerator[Chunk, None]


async def resent(answer: Callable[[], AbstractAsyncContextManager[Chunks]]) -> Chunks:
    """The chunks of an answer; where the connection to a replica breaks before the first of them, those of another.

    Chunks of progress do not count: they say nothing of the answer.
    """
    for left in reversed(range(TRIES)):
        has_begun = False
        try:
            async with answer() as chunks:
                async for chunk in chunks:
                    has_begun = has_begun or chunk.progress is None
                    yield chunk
                return
        except EngineLost:
            if has_begun or not left:
                raise


async def asked_again(ask: Callable[[], Awaitable[T]]) -> T:
    """What is answered as a whole; where the connection to a replica breaks, another one is asked."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(EngineLost):
            return await ask()
    return await ask()
