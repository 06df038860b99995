"""A model loaded on a node: placed, given its files, started, and reached."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from corral import __version__, names
from corral.cluster.file_route import FileRoute
from corral.cluster.identity import Identity, fingerprint
from corral.cluster.node_files import digest_of
from corral.cluster.placing import Cluster, Node, Placed, Resources, lacking, needs_of, smallest
from corral.cluster.remote import Health, RemoteWorker
from corral.cluster.wire import Hello, LoadState, Order, Started, WantedFile
from corral.config import Config
from corral.engine import connecting
from corral.engine.base import LoadProgress, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.errors import EngineError, EngineLost, InvalidName, NotPlaced, StoreError, reason_of
from corral.golang.durations import FOREVER_SECONDS

log = logging.getLogger(__name__)

STATE_SECONDS = 0.5
"""How often a node is asked how far a load is."""

STATE_TIMEOUT = 5.0
"""How long it may take to say that."""

STILL_FACTOR = 3
"""A load in which nothing moves is given up after so many times the seconds in which the node itself gives up its
worker. It has as long to say so, and for what it does besides."""

UNFIT_SECONDS = 300.0
"""How long a node that could not be given a model is asked after all others."""


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
            raise StoreError(f'cannot read "{path}": {reason_of(error)}') from error
        return WantedFile(self._known[key], state.st_size)


class Site(Struct, frozen=True):
    """Where a replica was placed: the node's id and address."""

    node: str
    address: str


class Unfit:
    """Nodes that could not be given a model, with the reasons, for as long as that is believed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[str, float]] = {}

    @property
    def reasons(self) -> Mapping[str, str]:
        """By the nodes' ids, a sentence each."""
        now = self._clock()
        return {node: reason for node, (reason, until) in self._found.items() if now < until}

    def add(self, node: str, reason: str) -> None:
        self._found[node] = (reason, self._clock() + UNFIT_SECONDS)

    def remove(self, node: str) -> None:
        """It was given one."""
        self._found.pop(node, None)


class Launching:
    """Loads models on nodes of a cluster. `without`: ids of nodes that are drained, and get no new ones."""

    def __init__(self, config: Config, cluster: Cluster, identity: Identity, route: FileRoute) -> None:
        self.without: set[str] = set()
        self.unfit = Unfit()
        self._config = config
        self._cluster = cluster
        self._identity = identity
        self._route = route
        self._digests = Digests()
        self._least = Resources()

    def look(self, nodes: Sequence[Node]) -> None:
        """Notes what nodes have. Where all are gone, the next ones are taken to be like the last."""
        found = smallest(nodes, self.without | self.unfit.reasons.keys())
        self._least = found if found.memory else self._least

    @property
    def memory(self) -> int:
        """Bytes that a model may count on: the memory of the smallest node, or of those that are expected."""
        return self._least.memory or self._config.ray_memory

    async def launch(
        self, spec: RunnerSpec, label: str, progress: LoadProgress, health: Health, template_error: str
    ) -> tuple[LlamaEngine, Site]:
        """`NotPlaced` where no node has room in time, or none that is fit; other errors as those of `launch`.
        Cancelling ends it."""
        files = await asyncio.to_thread(self._files, spec)
        nodes = await self._cluster.nodes()
        self.look(nodes)
        needs = needs_of(spec, self._least, self._config.ray_cpus, self._config.ray_gpus)
        spec = msgspec.structs.replace(spec, num_thread=int(needs.cpus), tuned=None, placement=None, parts=None)
        placed, node = await self._placed(needs, label, nodes)
        try:
            offered = {wanted.digest: path for path, wanted in files.items()}
            order = Order(
                spec=spec,
                label=label,
                files={str(path): wanted for path, wanted in files.items()},
                certificate=self._identity.certificate,
                file_route=self._route.url,
                shared_folder=self._config.ray_models,
                stall_timeout=None if self._config.load_timeout == FOREVER_SECONDS else self._config.load_timeout,
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

    async def _placed(self, needs: Resources, label: str, nodes: Sequence[Node]) -> tuple[Placed, Hello]:
        """A place on a node that can be given the model. A node that cannot is left out, and the next one is asked.

        Nodes that could not before are asked when no others are left: somebody may have mended them.
        """
        refused: dict[str, str] = {}
        over = asyncio.get_running_loop().time() + self._config.ray_place_timeout
        while True:
            left = {node.id for node in nodes if node.takes_models} - self.without - refused.keys()
            if refused and not left:
                raise self._not_placed(needs, label, nodes, refused)
            avoided = self.unfit.reasons.keys() if left - self.unfit.reasons.keys() else set()
            placed = await self._cluster.place(needs, self.without | refused.keys() | avoided)
            try:
                async with asyncio.timeout_at(over):
                    hello = await placed.hello()
                _check(hello)
            except TimeoutError as error:
                nodes = await self._cluster.nodes()
                silent = await placed.node_id()
                await asyncio.shield(placed.stop(0))
                for node in nodes:
                    if node.id == silent:
                        self.unfit.add(silent, f"node {node.address}: what was started there has not answered in time")
                raise self._not_placed(needs, label, nodes, refused) from error
            except EngineError as error:
                where = await placed.node_id()
                await asyncio.shield(placed.stop(0))
                if not where:
                    raise
                refused[where] = str(error)
                self.unfit.add(where, str(error))
                log.warning("model %s: the next node is asked: %s", label, error)
                nodes = await self._cluster.nodes()
            except BaseException:
                await asyncio.shield(placed.stop(0))
                raise
            else:
                self.unfit.remove(await placed.node_id())
                return placed, hello

    def _not_placed(self, needs: Resources, label: str, nodes: Sequence[Node], refused: Mapping[str, str]) -> NotPlaced:
        why = lacking(needs, nodes, self.without, {**self.unfit.reasons, **refused})
        what = "can be given" if refused else "has room for"
        return NotPlaced(f'no node {what} the model "{label}"\n{why}')

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
    stand still, or the same for a good deal longer: the node watches the worker, and this watches the node."""
    loading = asyncio.ensure_future(placed.load(order))
    clock = asyncio.get_running_loop().time
    heard = moved = clock()
    last = LoadState()
    silence, still = order.stall_seconds, order.stall_seconds * STILL_FACTOR
    try:
        while not (await asyncio.wait({loading}, timeout=STATE_SECONDS))[0]:
            if clock() - heard > silence:
                raise EngineLost(f"node {address} has not said how the load goes for {silence:g} seconds")
            if clock() - moved > still:
                raise EngineLost(f"node {address} says that it loads, and nothing has moved for {still:g} seconds")
            with contextlib.suppress(EngineError, TimeoutError):
                state = await connecting.within(STATE_TIMEOUT, placed.state())
                heard = clock()
                moved = moved if state == last else heard
                last = state
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
            f"node {node.address} has Corral {node.version[:40]}, and this server is {__version__}: "
            "install the same version there"
        )
    try:
        fingerprint(node.certificate)
    except ValueError as error:
        raise EngineError(f"node {node.address} says what cannot be read: its certificate is none") from error
