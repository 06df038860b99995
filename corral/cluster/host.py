"""What a node does for a replica: fetches the model's files, starts its worker, and lets the server reach that.

Knows no Ray: who starts it passes on what is said.
"""

import asyncio
import logging

import msgspec

from corral import __version__, cage
from corral.cluster import wire
from corral.cluster.identity import Identity
from corral.cluster.node_files import NodeFiles
from corral.cluster.relay import Relay
from corral.cluster.wire import Ended, Hello, LoadState, Order, Reply, Signs, Started
from corral.config import Config
from corral.engine import choice
from corral.engine.base import LoadProgress, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import cache_ram_mib, launch
from corral.engine.llama.log import new_log
from corral.errors import CorralError
from corral.machine.memory import memory
from corral.machine.threads import threads_here

log = logging.getLogger(__name__)


class Host:
    """One replica on this node. `address` is where others reach the node; `number` tells its log from others'."""

    def __init__(self, config: Config, address: str, number: str) -> None:
        self._config = config
        self._address = address
        self._number = number
        self._identity = Identity("corral node")
        self._files = NodeFiles(config.state / "node-files")
        self._progress = LoadProgress()
        self._fetched: dict[str, int] = {}
        self._wanted = 0
        self._engine: LlamaEngine | None = None
        self._relay: Relay | None = None
        self._watching: asyncio.Task[None] | None = None

    def hello(self) -> Hello:
        return Hello(__version__, self._address, self._identity.certificate)

    def state(self) -> LoadState:
        """How far the load is."""
        seconds, printed = self._progress.signs()
        return LoadState(
            sum(self._fetched.values()), self._wanted, self._progress.loaded(), self._files.checked, seconds, printed
        )

    async def load(self, order: Order) -> Reply:
        """Loads a model and opens the way to it. All that goes wrong is a `Failed`."""
        try:
            return await self._loaded(order)
        except CorralError as error:
            await self.stop("it could not be loaded")
            return wire.failed(error)
        except BaseException:
            await self.stop("it could not be loaded")
            raise

    async def _loaded(self, order: Order) -> Started:
        spec = await self._with_files(order)
        chosen = await asyncio.to_thread(choice.current, self._config)
        engine = await launch(
            spec,
            log=await asyncio.to_thread(
                new_log, self._config.state / "workers", f"node-{self._number}.log", "node-*.log"
            ),
            stall_timeout=order.stall_seconds,
            program=chosen.program,
            cache_ram_mib=cache_ram_mib(memory().available),
            template_error=order.template_error,
            progress=self._progress,
            cage=cage.wanted(self._config),
            flags_cache=self._config.state / "engine-flags",
        )
        self._engine = engine
        self._relay = Relay(self._identity, order.certificate, int(engine.url.rpartition(":")[2]), self._signs)
        port = await self._relay.open(self._address)
        self._watching = asyncio.create_task(self._watch(engine, self._relay))
        return Started(
            port=port,
            key=engine.key,
            pid=engine.pid,
            log=str(engine.log),
            pool=self._progress.pool,
            template_error=engine.template_error,
            has_llguidance=engine.has_llguidance,
        )

    async def _with_files(self, order: Order) -> RunnerSpec:
        """The specification with paths of this node."""
        tls = self._identity.asking(order.certificate)
        self._wanted = sum(file.size for file in order.files.values())
        here: dict[str, str] = {"": ""}
        for path, wanted in order.files.items():

            def note(size: int, digest: str = wanted.digest) -> None:
                self._fetched[digest] = size

            found = await self._files.get(wanted, order.file_route, tls, order.shared_folder, note)
            note(wanted.size)
            here[path] = str(found)
        spec = order.spec
        return msgspec.structs.replace(
            spec,
            model=here[spec.model],
            projectors=tuple(here[path] for path in spec.projectors),
            adapters=tuple(here[path] for path in spec.adapters),
            draft_model=here[spec.draft_model],
            num_thread=spec.num_thread or threads_here(),
        )

    def _signs(self) -> Signs:
        if self._engine is None:
            return Signs(0, 0.0, 0)
        seconds, printed = self._engine.signs_of_life()
        return Signs(self._engine.memory(), seconds, printed)

    async def _watch(self, engine: LlamaEngine, relay: Relay) -> None:
        reason = await engine.ended()
        last = await asyncio.to_thread(engine.last_error)
        relay.ended(Ended(reason, last, await engine.device_error()))
        log.warning("the worker of this node ended: %s", reason)

    async def stop(self, reason: str = "stopped") -> None:
        """Ends the worker, and all connections to it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()
        if self._relay is not None:
            self._relay.ended(Ended(reason))
            await self._relay.close()
        self._files.close()
