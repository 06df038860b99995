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
        """The GPUs. The first call looks for them, which takes a moment; it may be made long before it matters."""
        if self._search is None:
            self._search = asyncio.get_running_loop().create_task(find_gpus())
        self._gpus = await asyncio.shield(self._search)
        return self._gpus

    def memory(self) -> Memory:
        return memory(self._gpus)

    async def close(self) -> None:
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})
