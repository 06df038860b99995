"""A model loaded on a node: placed, given its files, started, and reached."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from corral import __version__, names
from corral.cluster.file_route import FileRoute
from corral.cluster.identity import Identity, fingerprint
from corral.cluster.node_files import digest_of
from corral.cluster.placing import Cluster, Node, Placed, lacking, needs_of
from corral.cluster.remote import Health, RemoteWorker
from corral.cluster.wire import Hello, Order, Started, WantedFile
from corral.config import Config
from corral.engine import connecting
from corral.engine.base import LoadProgress, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.errors import EngineError, EngineLost, InvalidName, NotPlaced, StoreError

log = logging.getLogger(__name__)

STATE_SECONDS = 0.5
"""How often a node is asked how far a load is."""

STATE_TIMEOUT = 5.0
"""How long it may take to say that."""


class Digests:
    """The digests of files, by their paths: a blob's is its name, that of others is computed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: Path) -> WantedFile:
        """`StoreError` when it cannot be read. Blocks."""
        try:
            state = path.stat()
            key = (str(path), state.st_size, state.st_mtime_ns)
            with contextlib.suppress(InvalidName):
                return WantedFile(str(names.parse_digest(path.name)), state.st_size)
            if key not in self._known:
                self._known[key] = digest_of(path)
        except OSError as error:
            raise StoreError(f'cannot read "{path}": {(error.strerror or str(error)).lower()}') from error
        return WantedFile(self._known[key], state.st_size)


class Site(Struct, frozen=True):
    """Where a replica was placed: the node's id and address."""

    node: str
    address: str


class Launching:
    """Loads models on nodes of a cluster. `without`: ids of nodes that get no new ones."""

    def __init__(self, config: Config, cluster: Cluster, identity: Identity, route: FileRoute) -> None:
        self.without: set[str] = set()
        self._config = config
        self._cluster = cluster
        self._identity = identity
        self._route = route
        self._digests = Digests()

    async def launch(
        self, spec: RunnerSpec, label: str, progress: LoadProgress, health: Health, template_error: str
    ) -> tuple[LlamaEngine, Site]:
        """`NotPlaced` where no node has room in time; other errors as those of `launch`. Cancelling ends it."""
        files = await asyncio.to_thread(self._files, spec)
        without = frozenset(self.without)
        nodes = await self._cluster.nodes()
        needs = needs_of(spec, nodes, self._config.ray_cpus, self._config.ray_gpus)
        placed = await self._cluster.place(needs, without)
        spec = msgspec.structs.replace(spec, num_thread=int(needs.cpus), tuned=None, placement=None, parts=None)
        try:
            try:
                async with asyncio.timeout(self._config.ray_place_timeout):
                    node = await placed.hello()
            except TimeoutError as error:
                why = lacking(needs, await self._cluster.nodes(), without)
                raise NotPlaced(f'no node has room for the model "{label}"\n{why}') from error
            _check(node)
            offered = {wanted.digest: path for path, wanted in files.items()}
            order = Order(
                spec=spec,
                label=label,
                files={str(path): wanted for path, wanted in files.items()},
                certificate=self._identity.certificate,
                file_route=self._route.url,
                shared_folder=self._config.ray_models,
                stall_timeout=self._config.load_timeout,
                template_error=template_error,
            )
            async with self._route.offered(node.certificate, offered):
                started = await _followed(placed, order, node.address, progress)
            engine = await self._reached(node, started, placed, health)
        except BaseException:
            await asyncio.shield(placed.stop(0))
            raise
        progress.pool = started.pool
        log.info("model %s: on node %s", label, node.address)
        return engine, Site(await placed.node_id(), node.address)

    async def _reached(self, node: Hello, started: Started, placed: Placed, health: Health) -> LlamaEngine:
        worker = RemoteWorker(node, started, self._identity, placed.stop, health)
        try:
            await worker.ready(self._config.load_timeout)
        except BaseException:
            await worker.stop(0)
            raise
        return LlamaEngine(worker, has_llguidance=started.has_llguidance, template_error=started.template_error)

    def _files(self, spec: RunnerSpec) -> dict[Path, WantedFile]:
        drafts = (spec.draft_model,) if spec.draft_model else ()
        paths = [Path(path) for path in (spec.model, *spec.projectors, *spec.adapters, *drafts)]
        return {path: self._digests.of(path) for path in paths}


async def _followed(placed: Placed, order: Order, address: str, progress: LoadProgress) -> Started:
    """A load, with what the node says of it on the way. `EngineLost` when it says nothing for as long as a load may
    stand still: the node watches the worker, and this watches the node."""
    loading = asyncio.ensure_future(placed.load(order))
    clock = asyncio.get_running_loop().time
    heard = clock()
    try:
        while not (await asyncio.wait({loading}, timeout=STATE_SECONDS))[0]:
            if clock() - heard > order.stall_timeout:
                raise EngineLost(f"node {address} has not said how the load goes for {order.stall_timeout:g} seconds")
            with contextlib.suppress(EngineError, TimeoutError):
                state = await connecting.within(STATE_TIMEOUT, placed.state())
                heard = clock()
                is_fetching = state.fetched < state.wanted and not state.loaded
                progress.preparing = (state.fetched, state.wanted) if is_fetching else None
                progress.loaded = lambda size=state.loaded: size  # type: ignore[misc]
    finally:
        loading.cancel()
        await asyncio.wait({loading})
        progress.preparing = None
    return loading.result()


def _check(node: Hello) -> None:
    """`EngineError` for a node that cannot be given a model."""
    if node.version != __version__:
        raise EngineError(
            f"node {node.address} has Corral {node.version}, and this server is {__version__}: "
            "install the same version there"
        )
    try:
        fingerprint(node.certificate)
    except ValueError as error:
        raise EngineError(f"node {node.address} says what cannot be read: its certificate is none") from error


def memory_of(nodes: Sequence[Node], without: Collection[str]) -> int:
    """Bytes that a model may count on: the memory of the smallest node; 0 where there is none."""
    return min((node.total.memory for node in nodes if node.is_alive and node.id not in without), default=0)
