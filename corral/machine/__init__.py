"""This machine: its memory at any moment, threads, and the GPUs once they have been looked for. Knows no model."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

import msgspec

from corral.golang.units import byte_text
from corral.machine import makers
from corral.machine.gpus import SECONDS, Gpu, find_gpus
from corral.machine.memory import Memory, memory

log = logging.getLogger(__name__)

LOOK_SECONDS = 20.0
"""How long devices that were listed once may take to be listed again."""


class Machine:
    """This machine: its memory at any moment, and the GPUs that the chosen engine lists, once they were looked for.

    `program` says which llama-server models are loaded with, empty: the wheel's engine; it may block. `kinds`: the
    engines for GPUs whose packages or indexes are set.
    """

    def __init__(self, program: Callable[[], str] = lambda: "", kinds: Collection[str] = ()) -> None:
        self._program = program
        self._kinds = kinds
        self._asked: str | None = None
        """The program whose devices are known."""
        self._gpus: tuple[Gpu, ...] = ()
        self._search: asyncio.Task[tuple[Gpu, ...]] | None = None
        self._recent: tuple[float, Memory] | None = None
        """What was read last, and when, in monotonic seconds."""

    async def look(self) -> tuple[Gpu, ...]:
        """The GPUs. The first call searches for them, which takes up to a minute; later ones return its result."""
        if self._search is None:
            self._search = asyncio.get_running_loop().create_task(self._find({}))
        return self._search.result() if self._search.done() else await asyncio.shield(self._search)

    async def look_again(self, held: Mapping[str, int]) -> None:
        """Asks anew what is free, if there are GPUs or another engine was chosen. `held`: what our own models hold."""
        await self.look()
        if self._gpus or await asyncio.to_thread(self._program) != self._asked:
            if self._search is not None and self._search.done():
                self._search = asyncio.get_running_loop().create_task(self._find(dict(held)))
            await self.look()

    async def _find(self, held: Mapping[str, int]) -> tuple[Gpu, ...]:
        program = await asyncio.to_thread(self._program)
        known = {gpu.name for gpu in self._gpus} if program == self._asked else set()
        found = await find_gpus(program, LOOK_SECONDS if known else SECONDS)
        for gpu in found:
            if gpu.name not in known:
                log.info("GPU %s: %s, %s of %s free", gpu.name, gpu.description, *map(byte_text, (gpu.free, gpu.total)))
        for lost in sorted(known - {gpu.name for gpu in found}):
            log.warning("GPU %s is not listed any more; models are loaded without it", lost)
        if not found and program != self._asked:
            made = await asyncio.to_thread(makers.vendors)
            if advice := makers.advice(made, self._kinds):
                log.warning("the system has a GPU that the engine cannot compute on; `%s` changes that", advice)
        self._asked = program
        self._gpus = tuple(
            msgspec.structs.replace(gpu, free=min(gpu.total, gpu.free + held.get(gpu.name, 0))) for gpu in found
        )
        return self._gpus

    def memory(self) -> Memory:
        """Main memory now, with the GPUs that were found last; of their memory, what no other program holds."""
        return memory(self._gpus)

    def recent_memory(self) -> Memory:
        """As `memory`, at most a second old: reading what limits it takes a millisecond, too long for each request."""
        now = time.monotonic()
        if self._recent is None or now - self._recent[0] > 1 or self._recent[1].gpus != self._gpus:
            self._recent = now, self.memory()
        return self._recent[1]

    async def close(self) -> None:
        """Ends a search that is under way."""
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})
