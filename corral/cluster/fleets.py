"""All models on the nodes of a cluster: a fleet for each, made when it is first asked for."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from msgspec import Struct

from corral.cluster.file_route import FileRoute
from corral.cluster.fleet import Fleet, Moved, Seat
from corral.cluster.identity import Identity
from corral.cluster.launching import Launching
from corral.cluster.placing import Cluster, Node
from corral.config import Config
from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.errors import BadRequest, NotFound
from corral.machine.memory import Memory
from corral.replicas.replica import Prompt
from corral.serving.decisions import SchedulerLimits
from corral.serving.place import Place
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler, SchedulerEvents

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often nodes are looked at, and replicas loaded again that are always to be there."""

_PLENTY = 1 << 50
"""Bytes that a replica's own scheduler believes there are: whether there is room is the cluster's business."""

RemoteLaunch: TypeAlias = Callable[[RunnerSpec, str, LoadProgress, Seat], Coroutine[Any, Any, Engine]]
"""Loads a model on a node for a replica, given its label and what is to say how far that is."""


class NodeReport(Struct, frozen=True):
    """A node and the replicas on it."""

    node: Node
    is_drained: bool
    unfit: str
    """Why it could not be given a model, a sentence; empty: nothing is known against it."""
    replicas: tuple[Runner, ...]


class Fleets:
    """The models on nodes. `local` is the scheduler of this machine, which may be one of the replicas."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        limits: SchedulerLimits,
        local: Scheduler,
        events: SchedulerEvents,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._limits = limits
        self._local = local
        self._events = events
        self._identity = Identity("corral server")
        self._route = FileRoute(self._identity, cluster.address)
        self.launching = Launching(config, cluster, self._identity, self._route)
        self._launch: RemoteLaunch
        self._fleets: dict[tuple[object, ...], Fleet] = {}
        self._nodes: Sequence[Node] = ()
        self._looking: asyncio.Task[None] | None = None

    async def open(self, launch: RemoteLaunch) -> None:
        """Begins; `launch` loads a model for a replica, in the end by `load`."""
        self._launch = launch
        await self._route.open()
        await self._know_nodes()
        self._looking = asyncio.create_task(self._look())

    async def load(
        self, spec: RunnerSpec, label: str, progress: LoadProgress, seat: Seat, template_error: str = ""
    ) -> LlamaEngine:
        """Loads a model whose files are all there for a replica, on a node of the cluster's choice."""
        engine, site = await self.launching.launch(spec, label, progress, seat.health, template_error)
        seat.site = site
        return engine

    @property
    def runners(self) -> Sequence[Runner]:
        """The models on nodes, and those being loaded."""
        return tuple(runner for seat in self._seats() for runner in seat.scheduler.runners)

    @property
    def queued(self) -> int:
        return sum(seat.scheduler.queued for seat in self._seats())

    def _seats(self) -> list[Seat]:
        """Without this machine's own."""
        seats = [seat for fleet in self._fleets.values() for seat in fleet.seats]
        return [seat for seat in seats if seat.scheduler is not self._local]

    def memory(self) -> Memory:
        """What a model may count on, which decides its context length."""
        size = self.launching.memory
        return Memory(size, size)

    def runner(
        self,
        spec: RunnerSpec,
        label: str,
        keep_alive: float | None,
        place: Place | None,
        prompt: Prompt,
        routed: Callable[[str, str], None],
    ) -> AbstractAsyncContextManager[Runner]:
        """A replica's loaded model, as `Scheduler.runner` gives one, with what `Fleet.runner` takes and raises."""
        return self._fleet(spec, label).runner(spec, label, keep_alive, place, prompt, routed)

    def expire(self, weights: str) -> None:
        """Unloads the model's replicas as soon as they have no users."""
        for fleet in self._fleets.values():
            if fleet.weights == weights:
                fleet.forget()
        for seat in self._seats():
            seat.scheduler.expire(weights)

    def _fleet(self, spec: RunnerSpec, label: str) -> Fleet:
        """That of the model as it is loaded: with these files, for this."""
        key = (spec.model, spec.projectors, spec.adapters, spec.mode)
        if key not in self._fleets:
            least, most = self._config.ray_replicas.of(label)
            local = self._config.ray_local

            def seat(number: int) -> Seat:
                if number == most:
                    tier = -1 if local == "first" else 2
                    return Seat(
                        "this machine",
                        tier=tier,
                        may_go=True,
                        scheduler=lambda seat: self._local,
                        is_ours=lambda runner: runner.spec.model == spec.model,
                    )
                tier = 0 if number < max(1, least) else 1
                name = f"replica {number + 1} of {label}"
                return Seat(name, tier=tier, may_go=number >= least, scheduler=self._scheduler)

            self._fleets[key] = Fleet(label, spec.model, most + (local != "no"), seat)
        return self._fleets[key]

    def _scheduler(self, seat: Seat) -> Scheduler:
        def launch(spec: RunnerSpec, label: str, progress: LoadProgress) -> Coroutine[Any, Any, Engine]:
            return self._launch(spec, label, progress, seat)

        return Scheduler(launch, lambda: Memory(_PLENTY, _PLENTY), self._limits, self._events)

    async def nodes(self) -> list[NodeReport]:
        """The nodes with what is on them, those that are alive first."""
        await self._know_nodes()
        found = []
        unfit = self.launching.unfit.reasons
        alive = {node.address for node in self._nodes if node.is_alive}
        shown = [node for node in self._nodes if node.is_alive or node.address not in alive]
        for node in sorted(shown, key=lambda node: (not node.is_alive, node.address)):
            seats = [seat for seat in self._seats() if seat.site is not None and seat.site.node == node.id]
            runners = tuple(runner for seat in seats for runner in seat.scheduler.runners)
            found.append(NodeReport(node, node.id in self.launching.without, unfit.get(node.id, ""), runners))
        return found

    async def _know_nodes(self) -> None:
        self._nodes = await self._cluster.nodes()
        self.launching.look(self._nodes)

    async def drain(self, text: str) -> list[Moved]:
        """Moves every replica away from a node, named by its address or id, which gets no new ones until `resume`.

        Where the only replica of a model has no other place, it stays, and the node gets new ones again.
        """
        node = await self._named(text)
        self.launching.without.add(node.id)
        is_left = any(one.takes_models and one.id not in self.launching.without for one in self._nodes)
        if not is_left and not self._config.ray_memory:  # else Ray's autoscaler starts another one
            self.launching.without.discard(node.id)
            raise BadRequest(f"node {node.address} is the only one that takes models: there is none to move them to")
        log.info("node %s is drained", node.address)
        moved: list[Moved] = []
        for fleet in tuple(self._fleets.values()):
            moved += await fleet.leave(node.id)
        if any(one.reason and not one.to for one in moved) and self._has_left_some(node):
            self.launching.without.discard(node.id)
        return moved

    def _has_left_some(self, node: Node) -> bool:
        return any(seat.site is not None and seat.site.node == node.id for seat in self._seats())

    def is_drained(self, text: str) -> bool:
        """Whether the node, named by its address or id, gets no new replicas."""
        return any(node.id in self.launching.without for node in self._nodes if text in (node.address, node.id))

    async def resume(self, text: str) -> None:
        """Lets a drained node have new replicas."""
        self.launching.without.discard((await self._named(text)).id)

    async def _named(self, text: str) -> Node:
        await self._know_nodes()
        found = [node for node in self._nodes if text in (node.address, node.id) and node.is_alive]
        if not found:
            raise NotFound(f'no node "{text}"; `corral nodes` lists them')
        return found[0]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._know_nodes()
            except Exception:
                log.exception("the cluster's nodes cannot be listed")
            for fleet in self._fleets.values():
                fleet.fill()

    async def close(self) -> None:
        """Ends every replica."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*(fleet.close() for fleet in self._fleets.values()))
        await asyncio.gather(*(seat.scheduler.close() for seat in self._seats()))
        await self._route.close()
        await self._cluster.close()
