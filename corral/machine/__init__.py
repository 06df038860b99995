"""This machine: its memory at any moment, threads, and the GPUs once they have been looked for. Knows no model."""

import asyncio

from corral.machine.gpus import Gpu, find_gpus
from corral.machine.memory import Memory, memory


class Machine:
    """This machine: its memory at any moment, and its GPUs once they have been looked for."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._search: asyncio.Task[tuple[Gpu, ...]] | None = None

    async def look(self) -> tuple[Gpu, ...]:
        """The GPUs. The first call searches for them, which takes up to a minute; later ones return its result."""
        if self._search is None:
            self._search = asyncio.get_running_loop().create_task(find_gpus())
        self._gpus = await asyncio.shield(self._search)
        return self._gpus

    def memory(self) -> Memory:
        """Main memory now, with the GPUs that `look` has found so far."""
        return memory(self._gpus)

    async def close(self) -> None:
        """Ends a search that is under way."""
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})
