"""Models that other servers answer for, too: which of them, or this machine, gets a request, and what if it fails.

A request is sent to the next replica as long as its answer has not begun; after that an error ends it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TypeVar

from corral import names
from corral.config.upstreams import ServedBy
from corral.errors import (
    Busy,
    CorralError,
    EngineDied,
    ModelFileError,
    NotHere,
    OutOfMemory,
    UpstreamBusy,
    UpstreamError,
)
from corral.inference.metrics import RequestMetrics
from corral.inference.remote import chunks_of, refusal, remote
from corral.inference.resending import Chunks, asked_again, resent
from corral.inference.runners import Runners, routing_prompt
from corral.inference.served_state import ServedState, UpstreamState
from corral.messages import ChatRequest, EmbedRequest, GenerateRequest
from corral.models.model import Model
from corral.names import Name
from corral.replicas.prefixes import BYTES_PER_TOKEN
from corral.replicas.replica import USUAL_ANSWER, Load, Prompt, Replica, choose
from corral.serving.traffic import Traffic
from corral.telemetry import Series
from corral.upstreams import bodies
from corral.upstreams.client import Client, Vectors
from corral.upstreams.via import ServerId

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = "local"
"""The name of the replica that is this machine."""

LOOK_SECONDS = 30.0
"""How old what a server says of itself may be before a list has it asked anew, behind the list's back."""

_FAILURES = (UpstreamError, Busy, EngineDied, OutOfMemory, ModelFileError)
"""What another replica need not fail with."""

Local = Callable[[], AbstractAsyncContextManager[Chunks]]
"""Has this machine answer."""


class _Upstream(Replica):
    """One server as a replica of a model."""

    def __init__(self, client: Client, *, weight: float, tier: int) -> None:
        super().__init__(
            client.name, weight=weight, tier=tier, load=lambda: Load(has_room=time.monotonic() >= self.busy_until)
        )
        self.client = client
        self.busy_until = 0.0
        self.remark = ""
        """What was wrong when it was asked last what it has."""
        self.probing: asyncio.Task[None] | None = None
        """While it is asked again and again whether it works."""
        self.question: asyncio.Task[None] | None = None
        """While one such question has no answer."""


class Served:
    """A model that other servers answer for; this machine does so, too, where the model is in its store."""

    def __init__(self, name: Name, how: ServedBy, clients: Sequence[Client], runners: Runners, series: Series):
        self.name = name
        self.label = str(name)
        self.traffic = Traffic()
        self._series = series
        self._runners = runners
        self._weights = ""
        """The file of the model in the store, where it is there."""
        self._here = 0
        """Requests that were sent to this machine and are not done."""
        is_local_first = how.spill == "local-first"
        self._local = Replica(
            LOCAL, tier=0 if is_local_first else 1, load=lambda: Load(self._is_loaded(), self._has_room())
        )
        self._upstreams = [
            _Upstream(client, weight=client.upstream.weight, tier=1 if is_local_first else 0) for client in clients
        ]
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked = float("-inf")
        self._since = int(time.time())
        self._capabilities = how.capabilities

    # What is asked

    @contextlib.asynccontextmanager
    async def answered(
        self, request: ChatRequest | GenerateRequest, model: Model | None, metrics: RequestMetrics, local: Local
    ) -> AsyncIterator[Chunks]:
        """The answer of whichever replica is chosen; `local` has this machine answer, where it has the `model`.

        `NotHere` for what no other server can do, where this machine has no such model.
        """
        refused = refusal(request)
        if refused is not None and model is None:
            raise refused
        prompt = await routing_prompt(request, bodies.max_tokens(request.options) or USUAL_ANSWER)
        tries = _Tries(self, self._replicas(model, only_here=refused is not None), prompt, metrics)

        @contextlib.asynccontextmanager
        async def answer() -> AsyncIterator[Chunks]:
            async with tries.next() as replica:
                if not isinstance(replica, _Upstream):
                    async with local() as chunks:
                        yield chunks
                    return
                sent = await remote(replica.client, request, model)
                metrics.got_upstream(self.label, self.traffic)
                async with aclosing(chunks_of(replica.client, request, sent, metrics)) as chunks:
                    yield chunks

        async with aclosing(resent(answer, tries)) as chunks:
            yield chunks

    async def embedded(
        self,
        request: EmbedRequest,
        model: Model | None,
        metrics: RequestMetrics,
        local: Callable[[], Awaitable[T]],
        finish: Callable[[Vectors], Awaitable[T]],
    ) -> T:
        """The vectors of whichever replica is chosen; `finish` makes of another server's what `local` gives.

        `NotHere` for texts as tokens, where this machine has no such model.
        """
        texts = [one for one in request.inputs if isinstance(one, str)]
        if model is None and len(texts) < len(request.inputs):
            raise NotHere(request.model, "texts as tokens")
        tokens = sum(len(text) for text in texts) // BYTES_PER_TOKEN
        replicas = self._replicas(model, only_here=len(texts) < len(request.inputs))
        tries = _Tries(self, replicas, Prompt(tokens=tokens), metrics)

        async def ask() -> T:
            async with tries.next() as replica:
                if not isinstance(replica, _Upstream):
                    return await local()
                metrics.got_upstream(self.label, self.traffic)
                client = replica.client
                body = await asyncio.to_thread(bodies.embedding_body, client.model, texts, request.dimensions)
                with metrics.serving():
                    return await finish(await client.embed(body, len(texts)))

        return await asked_again(ask, tries)

    def _replicas(self, model: Model | None, *, only_here: bool) -> Sequence[Replica]:
        if model is not None:
            self._weights = str(model.weights)
        here = () if model is None else (self._local,)
        return here if only_here else (*here, *self._upstreams)

    # This machine as a replica

    def _is_loaded(self) -> bool:
        return any(runner.spec.model == self._weights and runner.loading is None for runner in self._runners.runners)

    def _has_room(self) -> bool:
        """Whether a request would begin at once: in a free slot, or with a load that has to wait for nothing."""
        runners = [runner for runner in self._runners.runners if not runner.draining]
        mine = next((runner for runner in runners if runner.spec.model == self._weights), None)
        if mine is not None:
            return max(mine.users, self._here) < mine.spec.slots and not mine.pool.waiting
        others_wait = self._runners.queued or any(runner.loading is not None for runner in runners)
        return not (self._here or others_wait)

    @contextlib.contextmanager
    def sending(self, replica: Replica, prompt: Prompt) -> Iterator[None]:
        """The block in which a replica has a request."""
        is_here = replica is self._local
        self._here += is_here
        try:
            with replica.serving(prompt):
                yield
        finally:
            self._here -= is_here

    # What becomes of the others

    def chosen(self, replica: Replica, reason: str) -> None:
        """A request goes to a replica."""
        log.info("model %s: a request goes to %s: %s", self.label, replica.name, reason)

    def works(self, replica: Replica) -> None:
        """An answer of a replica has begun."""
        if not replica.breaker.is_closed:
            log.info("model %s: upstream %s works again", self.label, replica.name)
        replica.breaker.worked()

    def failed(self, replica: Replica, error: CorralError) -> None:
        """A request was failed by a replica. Another server that is gone gets no more until it is found to work."""
        self._series.replica_failures.labels(self.label, replica.name).inc()
        log.warning("model %s: %s", self.label, error)
        if isinstance(replica, _Upstream):
            if isinstance(error, UpstreamBusy):
                replica.busy_until = time.monotonic() + error.wait
            elif isinstance(error, UpstreamError) and error.is_gone:
                replica.breaker.failed(str(error))
                replica.prefixes.clear()
                self._probe(replica)

    def _probe(self, upstream: _Upstream) -> asyncio.Task[None]:
        """Asks a server that failed again and again whether it works, until it does."""
        if upstream.probing is None:
            upstream.probing = asyncio.ensure_future(self._until_it_works(upstream))
            self._keep(upstream.probing)
        return upstream.probing

    async def _until_it_works(self, upstream: _Upstream) -> None:
        try:
            while not upstream.breaker.is_closed:
                await asyncio.sleep(upstream.breaker.wait)
                await self._asked_once(upstream)
        finally:
            upstream.probing = None

    async def _asked_once(self, upstream: _Upstream) -> None:
        """Asks whether it works, or waits for the answer where somebody has just asked."""
        if upstream.question is None:
            upstream.question = asyncio.ensure_future(self._question(upstream))
            self._keep(upstream.question)
        await asyncio.shield(upstream.question)

    async def _question(self, upstream: _Upstream) -> None:
        upstream.breaker.begin()
        try:
            await upstream.client.probe()
        except CorralError as error:
            upstream.breaker.failed(str(error))
        else:
            self.works(upstream)
        finally:
            upstream.question = None
            upstream.breaker.abandoned()

    async def ask_again(self, replicas: Sequence[Replica]) -> None:
        """Asks all that get no requests whether they work, at once: there is nobody else to ask."""
        shut = [one for one in replicas if isinstance(one, _Upstream) and not one.breaker.is_closed]
        await asyncio.gather(*map(self._asked_once, shut))

    # What lists show

    def state(self) -> ServedState:
        """What is known of the servers; none of them is waited for."""
        states = tuple(
            UpstreamState(
                one.name, one.client.upstream.url, one.client.model, one.client.facts, one.breaker.error, one.remark
            )
            for one in self._upstreams
        )
        created = next((one.facts.created for one in states if one.facts.created), self._since)
        return ServedState(self.name, created, states, self._capabilities)

    def look(self) -> None:
        """Has the servers asked what they say of themselves, if that was long ago; does not wait for them."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            for upstream in self._upstreams:
                self._keep(asyncio.ensure_future(self._looked_at(upstream)))

    async def _looked_at(self, upstream: _Upstream) -> None:
        client, remark = upstream.client, ""
        try:
            await client.look()
            if not client.facts.is_known:
                remark = f'upstream "{client.name}" does not list a model "{client.model}"'
        except CorralError as error:
            remark = str(error)
        if remark not in ("", upstream.remark):
            log.warning("model %s: %s", self.label, remark)
        upstream.remark = remark

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for upstream in self._upstreams:
            await upstream.client.close()


class _Tries:
    """One request on its way through the replicas of a model."""

    def __init__(self, served: Served, replicas: Sequence[Replica], prompt: Prompt, metrics: RequestMetrics) -> None:
        self._served = served
        self._replicas = replicas
        self._prompt = prompt
        self._metrics = metrics
        self._tried: list[Replica] = []
        """The last one has the request now."""
        self._error: CorralError | None = None
        self._is_over = False
        """Whether none is left."""

    @contextlib.asynccontextmanager
    async def next(self) -> AsyncIterator[Replica]:
        """The block in which the replica that fits best of those not tried has the request; where none is left, the
        last error is raised."""
        found = choose(self._prompt, self._replicas, self._tried)
        if found is None:
            await self._served.ask_again([one for one in self._replicas if one not in self._tried])
            found = choose(self._prompt, self._replicas, self._tried)
        if found is None:
            self._is_over = True
            raise self._error or self._none_left()
        replica, route = found
        self._metrics.routed(replica.name, route.reason)
        self._served.chosen(replica, route.reason)
        self._tried.append(replica)
        with self._served.sending(replica, self._prompt):
            yield replica

    def works(self) -> None:
        self._served.works(self._tried[-1])

    def failed(self, error: CorralError, *, has_begun: bool) -> bool:
        if self._is_over or not isinstance(error, UpstreamError if has_begun else _FAILURES):
            return False
        self._error = error
        self._served.failed(self._tried[-1], error)
        return True

    def _none_left(self) -> CorralError:
        first = self._replicas[0]
        reason = first.breaker.error.partition(f'upstream "{first.name}" ')[2] or "is asked by another request just now"
        return UpstreamError(first.name, reason, code=503)


class Elsewhere:
    """The models of a server that other servers answer for, by their names."""

    def __init__(self, settings: Mapping[str, ServedBy], silence: float, runners: Runners, series: Series) -> None:
        self.server_id = ServerId()
        self._served: dict[Name, Served] = {}
        for text, how in settings.items():
            name = names.parse(text)
            bare = str(name).removesuffix(f":{names.DEFAULT_TAG}")
            clients = [Client(upstream, bare, silence, self.server_id) for upstream in how.upstreams]
            self._served[name.folded] = Served(name, how, clients, runners, series)

    def of(self, name: Name) -> Served | None:
        """None for a model that only this machine can answer for."""
        return self._served.get(name.folded) if self._served else None

    def all(self) -> Sequence[Served]:
        """Every such model. What is known of the servers is asked for anew, behind the caller's back."""
        for served in self._served.values():
            served.look()
        return tuple(self._served.values())

    async def close(self) -> None:
        for served in self._served.values():
            await served.close()
