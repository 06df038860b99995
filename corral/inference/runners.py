"""Which loaded model a request gets: this machine's, or, where it has nodes, one of a fleet on them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from corral.engine.base import RunnerSpec
from corral.errors import CorralError, EngineLost
from corral.messages import ChatRequest, GenerateRequest
from corral.replicas.prefixes import LARGE, prompt_bytes, size_of
from corral.replicas.replica import USUAL_ANSWER, Prompt, prompt_of
from corral.serving.place import Place
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler

if TYPE_CHECKING:
    from corral.cluster.fleets import Fleets

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
        return self._on_a_node(self.fleets, spec, label, keep_alive, place, request, routed)

    @contextlib.asynccontextmanager
    async def _on_a_node(
        self,
        fleets: "Fleets",
        spec: RunnerSpec,
        label: str,
        keep_alive: float | None,
        place: Place | None,
        request: ChatRequest | GenerateRequest | None,
        routed: Callable[[str, str], None],
    ) -> AsyncGenerator[Runner, None]:
        prompt = await routing_prompt(request)
        async with fleets.runner(spec, label, keep_alive, place, prompt, routed) as runner:
            yield runner

    def expire(self, weights: str) -> None:
        """Unloads the models with these weights as soon as they have no users."""
        self._here.expire(weights)
        if self.fleets is not None:
            self.fleets.expire(weights)


class NodeTries:
    """A request on its way from node to node, when the connection to one breaks. Which one comes next is the fleet's
    business, which has heard of it by then."""

    def __init__(self) -> None:
        self._left = TRIES - 1

    def works(self) -> None:
        """Nothing: the connections say so themselves."""

    def failed(self, error: CorralError, *, has_begun: bool) -> bool:
        self._left -= 1
        return isinstance(error, EngineLost) and self._left >= 0


async def routing_prompt(request: ChatRequest | GenerateRequest | None, answer_tokens: int = USUAL_ANSWER) -> Prompt:
    """What routing has to know of a request; a large one is hashed in a thread."""
    if request is None:
        return Prompt()

    def hashed() -> Prompt:
        return prompt_of(prompt_bytes(request), answer_tokens)

    return await asyncio.to_thread(hashed) if size_of(request) > LARGE else hashed()
