"""The replicas of one model: what is known of each while requests come and go, and which gets the next one."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec import Struct

from corral.replicas.breaker import Breaker
from corral.replicas.prefixes import BLOCK, BYTES_PER_TOKEN, Chain, Prefixes, chain
from corral.replicas.routing import ReplicaState, Route, route


class Prompt(Struct, frozen=True):
    """A request as far as it matters where it goes: its prompt's chain, about how many tokens it has, and how many the
    answer may have."""

    chain: Chain = ()
    tokens: int = 0
    answer_tokens: int = 0


USUAL_ANSWER = 256
"""Tokens that an answer is taken for whose length is left open."""


def prompt_of(text: bytes, answer_tokens: int = USUAL_ANSWER) -> Prompt:
    """A request with such a prompt, as `prompt_bytes` gives it."""
    return Prompt(chain(text), len(text) // BYTES_PER_TOKEN, answer_tokens)


class Load(Struct, frozen=True, gc=False):
    """How a replica is at a moment: whether the model is loaded there, whether it would begin with a request at once,
    and the tokens that it has in flight of all requests; None: those sent from here count."""

    is_warm: bool = True
    has_room: bool = True
    in_flight: int | None = None


READY = Load()


class Replica:
    """One place that answers for a model. `weight` and `tier` as in `ReplicaState`."""

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1.0,
        tier: int = 0,
        load: Callable[[], Load] = lambda: READY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.breaker = Breaker(clock)
        self.prefixes = Prefixes()
        self.served = 0
        self.is_leaving = False
        """Whether it gets no new requests, since it is to go."""
        self._weight, self._tier = weight, tier
        self._load = load
        self._sent_tokens = 0

    def state(self, prompt: Prompt, may_be_used: bool = True) -> ReplicaState:
        """As a request sees it now."""
        load = self._load()
        known = self.prefixes.known(prompt.chain) * BLOCK // BYTES_PER_TOKEN
        return ReplicaState(
            self.name,
            self._tier,
            self._weight,
            may_be_used and not self.is_leaving and self.breaker.may_pass,
            load.is_warm,
            load.has_room,
            self._sent_tokens if load.in_flight is None else load.in_flight,
            known if known < prompt.tokens else prompt.tokens,
            self.served,
        )

    @contextlib.contextmanager
    def serving(self, prompt: Prompt) -> Iterator[None]:
        """The block in which it has a request. What it then knows of prompts is noted at once, so that the next request
        of the same conversation follows."""
        self.served += 1
        self.breaker.begin()
        self.prefixes.add(prompt.chain)
        tokens = prompt.tokens + prompt.answer_tokens
        self._sent_tokens += tokens
        try:
            yield
        finally:
            self._sent_tokens -= tokens
            self.breaker.abandoned()


def choose(
    prompt: Prompt, replicas: Sequence[Replica], without: Collection[Replica] = ()
) -> tuple[Replica, Route] | None:
    """The replica for a request and why, leaving out those that were tried already; None where none is left."""
    found = route(prompt.tokens, [replica.state(prompt, replica not in without) for replica in replicas])
    return None if found is None else (replicas[found.index], found)
