"""Where workers may be placed: nodes, what they have, what a model needs, and the border to who decides.

Pure but for the border, which Ray is behind.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from corral.cluster.wire import Hello, LoadState, Order, Started
from corral.engine.base import RunnerSpec
from corral.serving.decisions import loaded_size

MIB, GIB = 1 << 20, 1 << 30

WORKER_BYTES = 192 * MIB
"""What a replica takes on its node beside the model: the program that starts the worker and ends TLS."""


class Resources(Struct, frozen=True):
    """What a node has or a replica needs: processor cores, bytes of main memory, GPUs."""

    cpus: float = 0.0
    memory: int = 0
    gpus: float = 0.0


class Node(Struct, frozen=True, kw_only=True):
    """A machine of the cluster; `id` is what the cluster calls it."""

    id: str
    address: str
    is_alive: bool = True
    total: Resources = Resources()
    free: Resources = Resources()

    @property
    def takes_models(self) -> bool:
        """Whether it is there and has a core for models; the head of a cluster has often none."""
        return self.is_alive and self.total.cpus >= 1


class Placed(Protocol):
    """A replica's place, given to it or still awaited."""

    async def hello(self) -> Hello:
        """Waits until it has a place and answers. `EngineError` when what is there does not start or cannot be read."""
        ...

    async def node_id(self) -> str:
        """Where its place is; empty when it has none yet, or when nobody knows any more."""
        ...

    async def load(self, order: Order) -> Started:
        """Has it load a model. Errors as those of `launch`, and those of fetching files."""
        ...

    async def state(self) -> LoadState: ...

    async def stop(self, grace: float) -> None:
        """Ends it with its worker, after `grace` seconds by force."""
        ...


class Cluster(Protocol):
    """Who knows the nodes and decides where a replica goes."""

    @property
    def address(self) -> str:
        """Of this machine, as nodes reach it."""
        ...

    async def nodes(self) -> Sequence[Node]: ...

    async def place(self, needs: Resources, without: Collection[str]) -> Placed:
        """Asks for a place on a node that is none of `without`. It may take until one is there."""
        ...

    async def close(self) -> None: ...


def smallest(nodes: Sequence[Node], without: Collection[str]) -> Resources:
    """The cores and the memory that every node has which may get a model, without GPUs; nothing where there is none."""
    usable = [node.total for node in nodes if node.takes_models and node.id not in without]
    if not usable:
        return Resources()
    return Resources(min(total.cpus for total in usable), min(total.memory for total in usable))


def needs_of(spec: RunnerSpec, least: Resources, cpus: int, gpus: float) -> Resources:
    """What a replica of a model takes. `cpus`: cores, where the model does not say how many threads compute; 0: as many
    as the smallest node has, which is `least`, or one. `gpus`: those of a model that may use some."""
    threads = spec.num_thread or cpus or int(least.cpus) or 1  # what was tuned holds on the server's machine only
    return Resources(float(threads), loaded_size(spec) + WORKER_BYTES, gpus if spec.num_gpu != 0 else 0.0)


def lacking(needs: Resources, nodes: Sequence[Node], drained: Collection[str], unfit: Mapping[str, str]) -> str:
    """Why no node took a replica, a line for each node. `unfit`: what is wrong with nodes, by their ids."""
    lines = [unfit.get(node.id) or _lack(needs, node, node.id in drained) for node in nodes]
    return "\n".join(lines or ["the cluster has no nodes"])


def _lack(needs: Resources, node: Node, is_drained: bool) -> str:
    if not node.is_alive:
        return f"node {node.address}: it is gone"
    if not node.takes_models:
        return f"node {node.address}: it has no cores for models"
    if is_drained:
        return f"node {node.address}: it is being drained"
    lacks = []
    if node.free.cpus < needs.cpus:
        lacks.append(f"{needs.cpus:g} cores, and {node.free.cpus:g} of {node.total.cpus:g} are free")
    if node.free.memory < needs.memory:
        free, total = node.free.memory / GIB, node.total.memory / GIB
        lacks.append(f"{needs.memory / GIB:.1f} GiB of memory, and {free:.1f} of {total:.1f} are free")
    if node.free.gpus < needs.gpus:
        lacks.append(f"{needs.gpus:g} GPUs, and {node.free.gpus:g} of {node.total.gpus:g} are free")
    return f"node {node.address}: " + ("; ".join(lacks) if lacks else "it did not start in time")
